package lb

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
)

// cookieName is the affinity cookie's: ID.SIGNATURE.
const cookieName = "wpfs_upstream"

// affinityCookie pins a client to an upstream until its browser closes.
func affinityCookie(id string, key []byte, https bool) *http.Cookie {
	return &http.Cookie{
		Name: cookieName, Value: id + "." + signature(id, key), Path: "/",
		HttpOnly: true, Secure: https, SameSite: http.SameSiteLaxMode,
	}
}

// cookieUpstream is the id in the request's affinity cookie, if its signature is
// right; "" otherwise.
func cookieUpstream(r *http.Request, key []byte) string {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return ""
	}
	i := strings.LastIndexByte(c.Value, '.')
	if i < 0 || !hmac.Equal([]byte(c.Value[i+1:]), []byte(signature(c.Value[:i], key))) {
		return ""
	}
	return c.Value[:i]
}

func signature(id string, key []byte) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("wpfs affinity 1\x00" + id))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:16])
}

// dropCookie removes one cookie from a request: it is not the upstream's business.
func dropCookie(h http.Header, name string) {
	var keep []string
	for _, line := range h["Cookie"] {
		for _, c := range strings.Split(line, ";") {
			if c = strings.TrimSpace(c); c != "" && !strings.HasPrefix(c, name+"=") {
				keep = append(keep, c)
			}
		}
	}
	if len(keep) == 0 {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = []string{strings.Join(keep, "; ")}
}
