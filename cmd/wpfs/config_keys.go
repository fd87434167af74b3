package main

import (
	"fmt"
	"reflect"
	"strings"
)

// Key is one thing that can be set, in its three spellings.
type Key struct {
	Name    string // node.data_dir
	Env     string // WPFS_NODE_DATA_DIR
	Flag    string // node-data-dir
	Default string
	Doc     string
	value   any // the default, typed
}

// configKeys lists every key of Config, in its order. It is made from the
// struct, so nothing can be forgotten.
func configKeys() []Key {
	var keys []Key
	def := reflect.ValueOf(defaultConfig())
	for i := range def.NumField() {
		section := def.Type().Field(i)
		for j := range section.Type.NumField() {
			f := section.Type.Field(j)
			name := section.Tag.Get("key") + "." + f.Tag.Get("key")
			v := def.Field(i).Field(j)
			keys = append(keys, Key{
				Name:    name,
				Env:     envPrefix + "_" + strings.ToUpper(strings.ReplaceAll(name, ".", "_")),
				Flag:    strings.NewReplacer(".", "-", "_", "-").Replace(name),
				Default: defaultText(v),
				Doc:     f.Tag.Get("doc"),
				value:   v.Interface(),
			})
		}
	}
	return keys
}

func defaultText(v reflect.Value) string {
	if v.IsZero() && v.Kind() != reflect.Bool {
		return ""
	}
	return fmt.Sprint(v.Interface())
}

// envPrefix begins the environment variables.
const envPrefix = "WPFS"

// keyNames are the names that a file may use.
func keyNames() []string {
	var names []string
	for _, k := range configKeys() {
		names = append(names, k.Name)
	}
	return names
}

// configDoc is docs/CONFIGURATION.md; a test keeps the file equal to it.
func configDoc() string {
	var b strings.Builder
	b.WriteString(configDocHead)
	section := ""
	for _, k := range configKeys() {
		if s, _, _ := strings.Cut(k.Name, "."); s != section {
			section = s
			fmt.Fprintf(&b, "\n## %s\n\n| key | environment | flag | default | meaning |\n|---|---|---|---|---|\n", s)
		}
		def := "–"
		if k.Default != "" {
			def = "`" + k.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | `--%s` | %s | %s |\n", k.Name, k.Env, k.Flag, def, strings.ReplaceAll(k.Doc, "|", `\|`))
	}
	b.WriteString("\n## Profiles\n\n| `cluster.profile` | raft heartbeat and election | node lease | renewed after |\n|---|---|---|---|\n")
	for _, name := range []string{profileOneMachine, profileLAN, profileSlowLinks} {
		p := profiles()[name]
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, p.Heartbeat, p.Lease, p.Renew)
	}
	return b.String()
}

const configDocHead = `# Configuration

Made from the program by ` + "`make docs`" + `; do not edit by hand (a test compares).

` + "`wpfs agent --config FILE`" + ` reads a YAML file with the sections below. A flag beats an
environment variable, which beats the file, which beats the default. An unknown key, in the
file, in the environment (WPFS_SECTION_…) or as a flag, is an error that names the nearest
valid one; so is a value against its rule. Either way the exit code is 3 (a flag: 2) and nothing was started.

` + "```yaml" + `
# three nodes; this is web1
node:
  id: web1
  data_dir: /var/lib/wpfs
cluster:
  name: shop
  bind: 10.0.0.1:7480
  peers:                      # the same list on all three
    - {id: web1, addr: 10.0.0.1:7480}
    - {id: web2, addr: 10.0.0.2:7480}
    - {id: lb,   addr: 10.0.0.3:7480}
object:
  url: s3://shop-files/wpfs?region=eu-central-1
mount:
  path: /srv/www
http:
  listen: 10.0.0.1:7482
` + "```" + `

Sizes are numbers with an optional unit (KiB, MiB, GiB, TiB). Lists are separated by commas
in the environment and in flags.
`
