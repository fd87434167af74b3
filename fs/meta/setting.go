package meta

import (
	"bytes"

	"github.com/wpfs/wpfs/fs"
)

func checkSetting(key string, size int) error {
	if key == "" || len(key) > fs.SettingKeyMax || size > fs.SettingValueMax {
		return fs.ErrInvalid
	}
	return nil
}

// setSetting is a compare and swap.
func (t *tx) setSetting(o fs.SetSetting) error {
	if err := checkSetting(o.Key, len(o.Value)); err != nil {
		return err
	}
	now, err := reader{t.o}.setting(o.Key)
	switch {
	case err != nil:
		return err
	case (now == nil) != (o.Old == nil) || !bytes.Equal(now, o.Old):
		return fs.ErrExist
	case o.Value != nil:
		t.o.put(keySetting(o.Key), encodeBlob(o.Value))
	case now != nil:
		t.o.del(keySetting(o.Key))
	}
	return nil
}

// setting is a setting's value; nil if there is none.
func (r reader) setting(key string) ([]byte, error) {
	b, ok, err := r.src.Get(keySetting(key))
	if err != nil || !ok {
		return nil, err
	}
	v, err := decodeBlob("setting", b)
	if err != nil {
		return nil, err
	}
	return append([]byte{}, v...), nil
}

// Setting is a setting's value in the latest state; nil if there is none.
func (s *State) Setting(key string) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return reader{s.kv}.setting(key)
}

// Settings lists the keys that begin with prefix, sorted.
func (s *State) Settings(prefix string) ([]string, error) {
	lo := keySetting(prefix)
	return collect(s, lo, after(lo), 0, func(k, _ []byte) (string, bool, error) { return string(k[1:]), true, nil })
}

// checkSettings is a part of Check.
func (c *checker) checkSettings() {
	c.each(kindSetting, func(k, v []byte) {
		where := "setting " + string(k[1:])
		b, err := decodeBlob("setting", v)
		if err == nil {
			err = checkSetting(string(k[1:]), len(b))
		}
		if err != nil {
			c.report(where, "%v", err)
		}
	})
}
