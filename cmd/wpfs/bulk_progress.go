package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/wpfs/wpfs/fs/bulk"
)

// Ways to show progress.
const (
	progressAuto  = "auto"
	progressBar   = "bar"
	progressLines = "lines"
	progressNone  = "none"
)

// How often progress is shown.
const (
	barEvery  = 200 * time.Millisecond
	lineEvery = 10 * time.Second
)

func checkProgress(how string) error {
	switch how {
	case progressAuto, progressBar, progressLines, progressNone:
		return nil
	}
	return usagef("--progress is auto, bar, lines or none, not %q", how)
}

// progressView shows a bulk.Progress until End.
type progressView struct {
	p     *bulk.Progress // nil: nobody looks
	verb  string
	began time.Time
	stop  chan struct{}
	ended sync.WaitGroup
}

// newProgress shows progress on w. It owns one goroutine, until End.
func newProgress(how, verb string, w io.Writer) *progressView {
	v := &progressView{verb: verb, began: time.Now(), stop: make(chan struct{})}
	if how == progressAuto {
		how = progressLines
		if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			how = progressBar
		}
	}
	switch how {
	case progressBar:
		v.p = new(bulk.Progress)
		v.ended.Go(func() { v.bar(w) })
	case progressLines:
		v.p = new(bulk.Progress)
		v.ended.Go(func() { v.lines(w) })
	}
	return v
}

// Progress is what the view looks at; nil if it shows nothing.
func (v *progressView) Progress() *bulk.Progress { return v.p }

// End stops the view.
func (v *progressView) End() {
	close(v.stop)
	v.ended.Wait()
}

// each calls show every d, until End.
func (v *progressView) each(d time.Duration, show func(bulk.Snapshot)) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			show(v.p.Look())
		case <-v.stop:
			return
		}
	}
}

func (v *progressView) bar(w io.Writer) {
	bar := progressbar.NewOptions64(1,
		progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true), progressbar.OptionSetPredictTime(true),
		progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(barEvery/2))
	v.each(barEvery, func(s bulk.Snapshot) {
		bar.Describe(fmt.Sprintf("%s %s files", v.what(s), filesOf(s)))
		// A bar that is full is over, and more may still be found.
		bar.ChangeMax64(max(s.AllBytes, s.Bytes) + 1)
		_ = bar.Set64(s.Bytes)
	})
	_ = bar.Finish()
}

func (v *progressView) what(s bulk.Snapshot) string {
	if s.Verifying {
		return "verifying after"
	}
	return v.verb
}

// filesOf is 12/3400, or 12/3400+ while more are found.
func filesOf(s bulk.Snapshot) string {
	more := ""
	if !s.Counted {
		more = "+"
	}
	return fmt.Sprintf("%d/%d%s", s.Files, max(s.AllFiles, s.Files), more)
}

func (v *progressView) lines(w io.Writer) {
	v.each(lineEvery, func(s bulk.Snapshot) {
		fmt.Fprintln(w, progressLine(v.what(s), s, time.Since(v.began)))
	})
}

// progressLine is one line of progress: how much, how fast, and how long still,
// as far as that can be told.
func progressLine(what string, s bulk.Snapshot, took time.Duration) string {
	rate := float64(s.Bytes) / max(took.Seconds(), 0.001)
	line := fmt.Sprintf("%s: %s files, %s of %s, %s/s", what, filesOf(s), humanBytes(s.Bytes), humanBytes(max(s.AllBytes, s.Bytes)), humanBytes(int64(rate)))
	if left := float64(s.AllBytes - s.Bytes); s.Counted && !s.Verifying && left > 0 && rate > 0 {
		line += ", " + humanDuration(left/rate) + " left"
	}
	return line
}
