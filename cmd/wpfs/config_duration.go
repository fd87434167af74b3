package main

import (
	"fmt"
	"strings"
	"time"
)

// Duration is a length of time. As text it is a number with a unit: 30s, 90m, 24h.
type Duration time.Duration

// UnmarshalText reads 30s, 90m, 24h, 1h30m.
func (d *Duration) UnmarshalText(t []byte) error {
	n, err := time.ParseDuration(strings.TrimSpace(string(t)))
	if err != nil {
		return fmt.Errorf("%q is not a time such as 30s or 24h", t)
	}
	*d = Duration(n)
	return nil
}

// String leaves out the zero units at the end: 24h, not 24h0m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
