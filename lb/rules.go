package lb

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Pool is a set of upstreams and a way to choose among them.
type Pool string

// The pools.
const (
	PoolAny   Pool = "any"   // all, by affinity
	PoolAdmin Pool = "admin" // one, with ranked successors
)

// Limit names a rate limit.
type Limit string

// The rate limits.
const (
	LimitNone    Limit = ""
	LimitLogin   Limit = "login"   // of an address and of a user name
	LimitXMLRPC  Limit = "xmlrpc"  // of an address, a multicall weighs as its calls
	LimitComment Limit = "comment" // of an address
)

// Who a rule is about.
const (
	WhoAll       = ""
	WhoLoggedIn  = "logged-in" // has WordPress's cookie; whether it is valid, WordPress finds out
	WhoAnonymous = "anonymous"
)

// Rule says what happens to requests that match Path and all of Methods, Query
// and Who that are set. Rules decide where a request goes, never who may do what:
// that is WordPress's.
//
// Path is matched against the request's path, decoded once, with doubled slashes
// and dot segments resolved. "/wp-login.php" matches a file of that name in any
// directory, for a site may live below one, with or without PATH_INFO behind it;
// "/wp-admin/*" a directory of that name anywhere and all below; "~RE" is a
// regular expression; "" matches every path.
type Rule struct {
	Path    string
	Methods []string // none: all
	Query   []string // one of these parameters must be there
	Who     string

	Pool  Pool  // "": any
	HTTPS bool  // plain requests are redirected in mode admin-only too
	Long  bool  // the upstream may take Timeouts.Long
	JSON  bool  // the caller is a program: errors are plain text
	Limit Limit // of requests, before they reach an upstream
	Deny  bool  // answered with 403
}

const (
	get  = http.MethodGet
	head = http.MethodHead
	post = http.MethodPost
)

// builtinRules are WordPress's paths. The first that matches decides.
var builtinRules = []Rule{
	// Static files of the administration are used by the login page and by the
	// front end's toolbar; each node has the same.
	{Path: "/wp-admin/css/*"}, {Path: "/wp-admin/js/*"}, {Path: "/wp-admin/images/*"},
	{Path: "/wp-admin/load-styles.php"}, {Path: "/wp-admin/load-scripts.php"},
	// Anonymous visitors use these two as well. They would make one node a hot
	// spot, and sites without HTTPS need them in the clear.
	{Path: "/wp-admin/admin-ajax.php", Who: WhoLoggedIn, Pool: PoolAdmin, Long: true, JSON: true},
	{Path: "/wp-admin/admin-ajax.php", JSON: true},
	{Path: "/wp-admin/admin-post.php", Who: WhoLoggedIn, Pool: PoolAdmin, Long: true},
	{Path: "/wp-admin/admin-post.php"},
	{Path: "/wp-admin/async-upload.php", Pool: PoolAdmin, HTTPS: true, Long: true, JSON: true},
	{Path: "/wp-admin/*", Pool: PoolAdmin, HTTPS: true, Long: true},
	// The password of a protected post comes from readers, and is no login.
	{Path: "/wp-login.php", Methods: []string{post}, Query: []string{"action=postpass"}, HTTPS: true},
	{Path: "/wp-login.php", Methods: []string{post}, Pool: PoolAdmin, HTTPS: true, Limit: LimitLogin},
	{Path: "/wp-login.php", Pool: PoolAdmin, HTTPS: true},
	{Path: "/xmlrpc.php", Methods: []string{post}, Pool: PoolAdmin, Long: true, JSON: true, Limit: LimitXMLRPC},
	{Path: "/xmlrpc.php", JSON: true},
	{Path: "/wp-json/*", Methods: []string{get, head}, Who: WhoAnonymous, JSON: true},
	{Path: "/wp-json/*", Methods: []string{http.MethodOptions}, JSON: true},
	{Path: "/wp-json/*", Pool: PoolAdmin, Long: true, JSON: true},
	{Query: []string{"rest_route"}, Methods: []string{get, head}, Who: WhoAnonymous, JSON: true},
	{Query: []string{"rest_route"}, Pool: PoolAdmin, Long: true, JSON: true},
	{Path: "/wp-cron.php", Pool: PoolAdmin, Long: true},
	{Path: "/wp-signup.php", HTTPS: true}, {Path: "/wp-activate.php", HTTPS: true},
	{Path: "/wp-comments-post.php", Methods: []string{post}, Limit: LimitComment},
	{Query: []string{"preview", "preview_id", "customize_changeset_uuid"}, Who: WhoLoggedIn, Pool: PoolAdmin},
}

func (r Rule) validate() error {
	var bad []error
	if re, ok := strings.CutPrefix(r.Path, "~"); ok {
		if _, err := regexp.Compile(re); err != nil {
			bad = append(bad, fmt.Errorf("the path %q is no regular expression: %w", r.Path, err))
		}
	} else if r.Path != "" && r.Path[0] != '/' {
		bad = append(bad, fmt.Errorf("the path %q must begin with / or ~", r.Path))
	} else if strings.Contains(strings.TrimSuffix(r.Path, "/*"), "*") {
		bad = append(bad, fmt.Errorf("the path %q may have * only at its end, behind a /; for more write ~ and a regular expression", r.Path))
	}
	for _, m := range r.Methods {
		if m == "" || strings.ToUpper(m) != m {
			bad = append(bad, fmt.Errorf("the method %q of the rule for %q must be in capitals", m, r.Path))
		}
	}
	if !slices.Contains([]string{WhoAll, WhoLoggedIn, WhoAnonymous}, r.Who) {
		bad = append(bad, fmt.Errorf("who must be %s or %s, is %q", WhoLoggedIn, WhoAnonymous, r.Who))
	}
	if !slices.Contains([]Pool{"", PoolAny, PoolAdmin}, r.Pool) {
		bad = append(bad, fmt.Errorf("the pool must be any or admin, is %q", r.Pool))
	}
	if !slices.Contains([]Limit{LimitNone, LimitLogin, LimitXMLRPC, LimitComment}, r.Limit) {
		bad = append(bad, fmt.Errorf("the limit must be login, xmlrpc or comment, is %q", r.Limit))
	}
	return errors.Join(bad...)
}

// matcher is a Rule ready for use.
type matcher struct {
	Rule
	re  *regexp.Regexp
	dir string // "/wp-admin/" of "/wp-admin/*"
}

func compileRules(own []Rule) []matcher {
	var list []matcher
	for _, r := range slices.Concat(own, builtinRules) {
		m := matcher{Rule: r}
		if m.Pool == "" {
			m.Pool = PoolAny
		}
		if re, ok := strings.CutPrefix(r.Path, "~"); ok {
			m.re = regexp.MustCompile(re) // Validate has compiled it before
		} else if strings.HasSuffix(r.Path, "/*") {
			m.dir = strings.TrimSuffix(r.Path, "*")
		}
		list = append(list, m)
	}
	return list
}

// ask is what rules look at in a request.
type ask struct {
	method, path, query string
	loggedIn            bool
}

func askOf(r *http.Request) ask {
	return ask{method: r.Method, path: cleanPath(r.URL.Path), query: r.URL.RawQuery, loggedIn: isLoggedIn(r)}
}

// cleanPath merges slashes and resolves dot segments of a path that was decoded
// once. A slash at the end stays.
func cleanPath(p string) string {
	if p == "" {
		return "/"
	}
	c := path.Clean("/" + p)
	if p[len(p)-1] == '/' && c != "/" {
		c += "/"
	}
	return c
}

// isLoggedIn looks for WordPress's session cookie, or a password of an application.
func isLoggedIn(r *http.Request) bool {
	if r.Header.Get("Authorization") != "" {
		return true
	}
	for _, line := range r.Header["Cookie"] {
		for rest := line; rest != ""; {
			var c string
			c, rest, _ = strings.Cut(rest, ";")
			if strings.HasPrefix(strings.TrimLeft(c, " "), "wordpress_logged_in_") {
				return true
			}
		}
	}
	return false
}

// defaultRule is for what no rule matches: pages and files of the site.
var defaultRule = Rule{Pool: PoolAny}

// route finds the first rule that matches.
func route(rules []matcher, a ask) Rule {
	for i := range rules {
		if rules[i].matches(a) {
			return rules[i].Rule
		}
	}
	return defaultRule
}

func (m *matcher) matches(a ask) bool {
	switch {
	case len(m.Methods) > 0 && !slices.Contains(m.Methods, a.method),
		m.Who == WhoLoggedIn && !a.loggedIn,
		m.Who == WhoAnonymous && a.loggedIn,
		!m.matchesPath(a.path):
		return false
	}
	return len(m.Query) == 0 || a.query != "" && slices.ContainsFunc(m.Query, func(p string) bool { return hasParam(a.query, p) })
}

func (m *matcher) matchesPath(p string) bool {
	switch {
	case m.Path == "":
		return true
	case m.re != nil:
		return m.re.MatchString(p)
	case m.dir != "":
		return strings.Contains(p, m.dir) || strings.HasSuffix(p, m.dir[:len(m.dir)-1])
	}
	i := strings.Index(p, m.Path)
	return i >= 0 && (i+len(m.Path) == len(p) || p[i+len(m.Path)] == '/')
}

// hasParam reports whether the raw query has the parameter; want is NAME or
// NAME=VALUE.
func hasParam(raw, want string) bool {
	name, value, both := strings.Cut(want, "=")
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		k, v, _ := strings.Cut(pair, "=")
		if unescaped(k) == name && (!both || unescaped(v) == value) {
			return true
		}
	}
	return false
}

func unescaped(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	u, err := url.QueryUnescape(s)
	if err != nil {
		return s
	}
	return u
}
