package lb

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestBuiltinRules is the table of WordPress's paths.
func TestBuiltinRules(t *testing.T) {
	rules := compileRules(nil)
	const in, out = true, false
	for _, row := range []struct {
		ask   string // METHOD URL
		login bool
		want  string // pool, then what else the rule says
	}{
		{"GET /", out, "any"},
		{"GET /", in, "any"},
		{"GET /2026/11/hello/", out, "any"},
		{"GET /wp-content/uploads/2026/11/a.jpg", out, "any"},
		{"GET /wp-includes/js/jquery/jquery.min.js", out, "any"},
		{"GET /wp-admin/", in, "admin https long"},
		{"GET /wp-admin", out, "admin https long"},
		{"GET /blog/wp-admin/plugins.php", in, "admin https long"},
		{"GET //wp-admin//plugins.php", in, "admin https long"},
		{"GET /x/../wp-admin/plugins.php", in, "admin https long"},
		{"GET /wp%2Dadmin/plugins.php", in, "admin https long"},
		{"GET /wp-adminx/plugins.php", out, "any"},
		{"POST /wp-admin/async-upload.php", in, "admin https long json"},
		{"POST /wp-admin/update.php?action=upload-plugin", in, "admin https long"},
		{"GET /wp-admin/network/sites.php", in, "admin https long"},
		{"POST /wp-admin/admin-ajax.php", out, "any json"},
		{"POST /wp-admin/admin-ajax.php", in, "admin long json"},
		{"GET /site2/wp-admin/admin-ajax.php?action=x", out, "any json"},
		{"POST /wp-admin/admin-post.php", out, "any"},
		{"POST /wp-admin/admin-post.php", in, "admin long"},
		{"GET /wp-admin/load-styles.php?c=1", out, "any"},
		{"GET /wp-admin/load-scripts.php?c=1", in, "any"},
		{"GET /wp-admin/css/login.min.css?ver=6", out, "any"},
		{"GET /wp-admin/js/common.min.js", in, "any"},
		{"GET /wp-admin/images/spinner.gif", out, "any"},
		{"GET /wp-login.php", out, "admin https"},
		{"POST /wp-login.php", out, "admin https login"},
		{"POST /wp-login.php?action=lostpassword", out, "admin https login"},
		{"POST /wp-login.php?action=postpass", out, "any https"},
		{"POST /wp-login.php/x", out, "admin https login"},
		{"POST /xmlrpc.php", out, "admin long json xmlrpc"},
		{"GET /xmlrpc.php", out, "any json"},
		{"GET /wp-json/wp/v2/posts", out, "any json"},
		{"GET /wp-json/wp/v2/posts", in, "admin long json"},
		{"POST /wp-json/wp/v2/media", in, "admin long json"},
		{"OPTIONS /wp-json/wp/v2/media", out, "any json"},
		{"DELETE /index.php/wp-json/wp/v2/posts/1", in, "admin long json"},
		{"GET /?rest_route=/wp/v2/posts", out, "any json"},
		{"POST /?rest%5Froute=/wp/v2/posts", out, "admin long json"},
		{"GET /?x=rest_route", out, "any"},
		{"POST /wp-cron.php?doing_wp_cron=1.5", out, "admin long"},
		{"GET /wp-signup.php", out, "any https"},
		{"POST /wp-comments-post.php", out, "any comment"},
		{"GET /?p=1&preview=true", in, "admin"},
		{"GET /?p=1&preview=true", out, "any"},
		{"GET /?customize_changeset_uuid=1", in, "admin"},
		{"GET /?wc-ajax=add_to_cart", out, "any"},
		{"POST /checkout/", out, "any"},
	} {
		method, target, _ := strings.Cut(row.ask, " ")
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{Method: method, URL: u, Header: http.Header{}}
		if row.login {
			r.Header.Set("Cookie", "wp-settings-1=x; wordpress_logged_in_0123=admin%7C1")
		}
		if got := ruleText(route(rules, askOf(r))); got != row.want {
			t.Errorf("%s (logged in: %v): %s, want %s", row.ask, row.login, got, row.want)
		}
	}
}

func ruleText(r Rule) string {
	s := string(r.Pool)
	for _, f := range []struct {
		on   bool
		name string
	}{{r.HTTPS, "https"}, {r.Long, "long"}, {r.JSON, "json"}, {r.Limit != "", string(r.Limit)}, {r.Deny, "deny"}} {
		if f.on {
			s += " " + f.name
		}
	}
	return s
}

// TestOwnRules come before the built-in ones.
func TestOwnRules(t *testing.T) {
	own := []Rule{
		{Path: "/wp-login.php", Methods: []string{"POST"}, Deny: true},
		{Path: "~^/intern/[0-9]+$", Pool: PoolAdmin},
		{Path: "/import/*", Pool: PoolAdmin, Long: true},
	}
	for _, r := range own {
		if err := r.validate(); err != nil {
			t.Fatal(err)
		}
	}
	rules := compileRules(own)
	for target, want := range map[string]string{
		"/wp-login.php": "any deny", "/intern/12": "admin", "/intern/x": "any", "/import/": "admin long", "/a/import": "admin long",
	} {
		if got := ruleText(route(rules, ask{method: "POST", path: target})); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
	for _, r := range []Rule{{Path: "~("}, {Path: "x"}, {Path: "/a*b"}, {Path: "/x", Methods: []string{"post"}}, {Who: "me"}, {Pool: "x"}, {Limit: "x"}} {
		if r.validate() == nil {
			t.Errorf("%+v is valid", r)
		}
	}
}

// TestLoggedIn: by WordPress's cookie wherever it stands, or by credentials.
func TestLoggedIn(t *testing.T) {
	for cookie, want := range map[string]bool{
		"": false, "wordpress_logged_in_ab=1": true, "a=1;wordpress_logged_in_ab=1": true, "a=wordpress_logged_in_": false,
		"wordpress_test_cookie=1; wp-settings-1=2": false, "xwordpress_logged_in_ab=1": false,
	} {
		r := &http.Request{Header: http.Header{"Cookie": {cookie}}}
		if isLoggedIn(r) != want {
			t.Errorf("cookie %q: logged in %v", cookie, !want)
		}
	}
	if !isLoggedIn(&http.Request{Header: http.Header{"Authorization": {"Basic x"}}}) {
		t.Error("an application password is a login")
	}
}

// FuzzRoute: whatever the path, a route is found, and writing the same path in
// another way finds the same one.
func FuzzRoute(f *testing.F) {
	for _, s := range []string{"/wp-admin/", "/a//b/../wp-login.php", "/wp-json/x", "/./x", "/%2e%2e/wp-admin"} {
		f.Add(s, "preview=1")
	}
	rules := compileRules(nil)
	f.Fuzz(func(t *testing.T, path, query string) {
		u, err := url.ParseRequestURI("/" + path)
		if err != nil || climbs(u.Path) {
			return
		}
		clean := cleanPath(u.Path)
		if strings.Contains(clean, "//") || strings.Contains(clean, "/./") || strings.Contains(clean, "/../") || clean[0] != '/' {
			t.Fatalf("%q became %q", u.Path, clean)
		}
		if cleanPath(clean) != clean {
			t.Fatalf("%q is not stable", clean)
		}
		a := route(rules, ask{method: "GET", path: clean, query: query})
		b := route(rules, ask{method: "GET", path: cleanPath("/x/.." + strings.ReplaceAll(u.Path, "/", "//")), query: query})
		if ruleText(a) != ruleText(b) {
			t.Fatalf("%q: %s and %s", u.Path, ruleText(a), ruleText(b))
		}
	})
}
