package main

import "testing"

func TestDuration(t *testing.T) {
	for text, want := range map[string]string{"24h": "24h", "90m": "1h30m", " 30s ": "30s", "1h0m5s": "1h0m5s", "10m": "10m", "500ms": "500ms"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != want {
			t.Errorf("%q is %v, %v, want %s", text, d, err, want)
		}
		var again Duration
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%v does not come back: %v, %v", d, again, err)
		}
	}
	for _, text := range []string{"", "24", "a day"} {
		var d Duration
		if d.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q is a time", text)
		}
	}
}
