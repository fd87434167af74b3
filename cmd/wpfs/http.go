package main

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

//go:embed page.html
var pageHTML string

// httpHandler is what http.listen serves. It changes nothing, so anyone who
// reaches the port may read it.
func httpHandler(s source, reg *prometheus.Registry, withPprof bool) (http.Handler, error) {
	page, err := template.New("page").Funcs(template.FuncMap{"bytes": humanBytes, "duration": humanDuration}).Parse(pageHTML)
	if err != nil {
		return nil, err
	}
	m := http.NewServeMux()
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, s.Status()) })
	m.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, publicStatus(s.Status())) })
	m.HandleFunc("GET /members", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, s.Members()) })
	m.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { answerPage(w, page, s) })
	if withPprof {
		m.HandleFunc("/debug/pprof/", pprof.Index)
		m.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		m.HandleFunc("/debug/pprof/profile", pprof.Profile)
		m.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		m.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return m, nil
}

// publicStatus leaves out the names of files: the admin socket has them.
func publicStatus(st Status) Status {
	st.Content.AtRisk.Files = nil
	return st
}

// answerHealth is 200 "ok", or 503 with a reason on each line.
func answerHealth(w http.ResponseWriter, st Status) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if st.Healthy {
		w.Write([]byte("ok\n"))
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	w.Write([]byte(strings.Join(st.Reasons, "\n") + "\n"))
}

func answerPage(w http.ResponseWriter, page *template.Template, s source) {
	var b bytes.Buffer
	data := struct {
		Status
		Nodes []Member
		Now   string
	}{s.Status(), s.Members(), time.Now().UTC().Format("2006-01-02 15:04:05 MST")}
	if err := page.Execute(&b, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.Write(b.Bytes())
}
