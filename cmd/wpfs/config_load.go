package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// This is the only file that knows viper.

// defaultConfigFile is read when --config is not given and the file is there.
const defaultConfigFile = "/etc/wpfs/wpfs.yaml"

// configFlags adds --config and one flag per key to fs.
func configFlags(fs *pflag.FlagSet) {
	fs.StringP("config", "c", "", "configuration file (YAML); default "+defaultConfigFile+" if it is there")
	for _, k := range configKeys() {
		switch k.value.(type) {
		case bool:
			fs.Bool(k.Flag, false, k.Doc)
		default:
			fs.String(k.Flag, "", k.Doc)
		}
	}
}

// loadConfig puts defaults, file, environment and flags together (flags win),
// completes and validates them. extra are keys set by other means (mount's
// arguments); they beat even flags. Every error is a Problem with CodeConfig.
func loadConfig(fs *pflag.FlagSet, extra map[string]string) (Config, error) {
	return loadConfigFor(fs, extra, (*Config).Validate)
}

// loadConfigFor is loadConfig for programs that need not all of it.
func loadConfigFor(fs *pflag.FlagSet, extra map[string]string, validate func(*Config) error) (Config, error) {
	v := viper.New()
	for _, k := range configKeys() {
		v.SetDefault(k.Name, k.value)
		if err := errors.Join(v.BindEnv(k.Name, k.Env), v.BindPFlag(k.Name, fs.Lookup(k.Flag))); err != nil {
			return Config{}, problem(CodeConfig, err, "the key "+k.Name+" cannot be bound", "")
		}
	}
	file, err := readConfigFile(v, fs.Lookup("config").Value.String())
	if err != nil {
		return Config{}, err
	}
	for key, val := range extra {
		v.Set(key, val)
	}
	return decodeConfig(v, file, os.Environ(), validate)
}

// parseConfig is loadConfig for a file that is not written yet: what an agent
// will make of it when neither environment nor flags have a say. name stands for
// the file in errors.
func parseConfig(name string, yaml []byte) (Config, error) {
	v := viper.New()
	for _, k := range configKeys() {
		v.SetDefault(k.Name, k.value)
	}
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(yaml)); err != nil {
		return Config{}, problem(CodeConfig, err, name+" cannot be read", "")
	}
	return decodeConfig(v, name, nil, (*Config).Validate)
}

// decodeConfig makes the typed configuration of everything that v has.
func decodeConfig(v *viper.Viper, file string, environ []string, validate func(*Config) error) (Config, error) {
	bad := []error{unknownKeys(v.AllKeys(), file), unknownEnv(environ)}
	for key, valid := range listKeys {
		bad = append(bad, unknownListKeys(v.Get(key), file, key, valid))
	}
	if err := errors.Join(bad...); err != nil {
		return Config{}, problem(CodeConfig, err, "the configuration is wrong", "")
	}
	var c Config
	if err := v.UnmarshalExact(&c, decodeRules); err != nil {
		return Config{}, problem(CodeConfig, err, "the configuration is wrong", "")
	}
	c.complete()
	if err := validate(&c); err != nil {
		return Config{}, problem(CodeConfig, err, "the configuration is wrong", "docs/CONFIGURATION.md has every key and its rule")
	}
	return c, nil
}

func readConfigFile(v *viper.Viper, file string) (string, error) {
	if file == "" {
		if _, err := os.Stat(defaultConfigFile); err != nil {
			return "", nil
		}
		file = defaultConfigFile
	}
	v.SetConfigFile(file)
	v.SetConfigType("yaml")
	if err := v.ReadInConfig(); err != nil {
		return "", problem(CodeConfig, err, "the configuration file "+file+" cannot be read", "Name an existing YAML file with --config")
	}
	return file, nil
}

func decodeRules(d *mapstructure.DecoderConfig) {
	d.TagName = "key"
	d.DecodeHook = mapstructure.ComposeDecodeHookFunc(
		trimmedList,
		durationText,
		mapstructure.TextUnmarshallerHookFunc(),
	)
}

// durationText reads 10s, 5m, 1h30m. A bare number would be nanoseconds, which
// nobody means.
func durationText(from, to reflect.Type, data any) (any, error) {
	if to != reflect.TypeFor[time.Duration]() || from == to {
		return data, nil
	}
	d, err := time.ParseDuration(fmt.Sprint(data))
	if err != nil {
		return nil, fmt.Errorf("%q is not a duration such as 10s or 5m", fmt.Sprint(data))
	}
	return d, nil
}

// trimmedList splits "a, b" where a list is wanted; viper's own splitting keeps
// blanks and makes one empty element of nothing.
func trimmedList(from, to reflect.Type, data any) (any, error) {
	if from.Kind() != reflect.String || to.Kind() != reflect.Slice {
		return data, nil
	}
	list := []string{}
	for s := range strings.SplitSeq(reflect.ValueOf(data).String(), ",") {
		if s = strings.TrimSpace(s); s != "" {
			list = append(list, s)
		}
	}
	return list, nil
}

// unknownKeys names every key of the file that does not exist, and the nearest
// one that does.
func unknownKeys(got []string, file string) error {
	valid := keyNames()
	var bad []error
	slices.Sort(got)
	for _, key := range got {
		if !slices.Contains(valid, key) {
			bad = append(bad, fmt.Errorf("%s: there is no key %q%s", file, key, suggestion(key, valid)))
		}
	}
	return errors.Join(bad...)
}

// listKeys are the keys with lists that viper does not look into, and what their
// elements may have.
var listKeys = map[string][]string{
	"cluster.peers":   {"id", "addr"},
	"lb.upstreams":    {"id", "addr", "weight", "zone", "health"},
	"lb.certificates": {"cert", "key"},
	"lb.rules":        {"path", "methods", "query", "who", "pool", "https", "long", "json", "limit", "deny"},
}

// unknownListKeys does the same inside such a list.
func unknownListKeys(value any, file, listKey string, valid []string) error {
	list, _ := value.([]any)
	var bad []error
	for i, p := range list {
		m, _ := p.(map[string]any)
		for key := range m {
			if !slices.Contains(valid, key) {
				bad = append(bad, fmt.Errorf("%s: %s, number %d: there is no key %q%s", file, listKey, i+1, key, suggestion(key, valid)))
			}
		}
	}
	return errors.Join(bad...)
}

// unknownEnv does the same for WPFS_SECTION_… of the environment. Variables of
// other beginnings (WPFS_DEV_JSON, say) are not ours to judge.
func unknownEnv(environ []string) error {
	var valid []string
	sections := map[string]bool{}
	for _, k := range configKeys() {
		valid = append(valid, k.Env)
		section, _, _ := strings.Cut(k.Name, ".")
		sections[envPrefix+"_"+strings.ToUpper(section)+"_"] = true
	}
	var bad []error
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		if slices.Contains(valid, name) {
			continue
		}
		for s := range sections {
			if strings.HasPrefix(name, s) {
				bad = append(bad, fmt.Errorf("the environment variable %s means no key%s", name, suggestion(name, valid)))
			}
		}
	}
	return errors.Join(bad...)
}
