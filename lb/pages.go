package lb

import (
	_ "embed"
	"net/http"
	"strconv"
	"strings"
)

//go:embed page.html
var builtinPage []byte

// Seconds after which clients may come again.
const (
	maintenanceRetry = 300
	nobodyRetry      = 10
)

// answerText is a short answer of the balancer's own.
func answerText(w http.ResponseWriter, code int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	w.Write([]byte(text + "\n"))
}

// answerUnavailable is the maintenance page, for those who read it; programs get
// a line. It is sent only when nobody answered, or the operator wants it: an
// upstream's own errors carry what callers need (WordPress's uploader reads
// X-WP-Upload-Attachment-ID from a 5xx).
func (s *settings) answerUnavailable(w http.ResponseWriter, r *http.Request, rule Rule, retry int) {
	h := w.Header()
	h.Set("Retry-After", strconv.Itoa(retry))
	if !wantsPage(r, rule) {
		answerText(w, http.StatusServiceUnavailable, "The site is not available at the moment.")
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusServiceUnavailable)
	w.Write(s.page)
}

// wantsPage: a person reads the answer.
func wantsPage(r *http.Request, rule Rule) bool {
	return !rule.JSON && rule.Pool != PoolAdmin && r.Header.Get("X-Requested-With") == "" &&
		(r.Method == get || r.Method == head || r.Method == post) && strings.Contains(r.Header.Get("Accept")+",", "text/html")
}
