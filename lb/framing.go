package lb

import (
	"bytes"
	"strconv"
	"strings"
)

// framing is how a request's body ends.
type framing struct {
	length  int64
	chunked bool
}

// framingOf judges a whole request header (RFC 9112): every line ends in CRLF,
// none is folded, no name has blanks around it, at most one Host, Content-Length
// and Transfer-Encoding, not both of the latter, the only coding is chunked, a
// host in the request line is the Host.
func framingOf(h []byte) (framing, error) {
	var f framing
	line, n, err := cutLine(h, len(h))
	if err != nil {
		return f, err
	}
	target, ok := requestTarget(line)
	if !ok {
		return f, errAmbiguous
	}
	var host, length, coding []string
	for h = h[n:]; ; h = h[n:] {
		if line, n, err = cutLine(h, len(h)); err != nil {
			return f, err
		}
		if len(line) == 0 {
			break
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found || !isToken(name) {
			return f, errAmbiguous // folded lines begin with a blank, which no name has
		}
		var list *[]string
		switch { // most names are of another length, and cost nothing more
		case len(name) == len("host") && bytes.EqualFold(name, []byte("host")):
			list = &host
		case len(name) == len("content-length") && bytes.EqualFold(name, []byte("content-length")):
			list = &length
		case len(name) == len("transfer-encoding") && bytes.EqualFold(name, []byte("transfer-encoding")):
			list = &coding
		default:
			continue
		}
		*list = append(*list, strings.Trim(string(value), " \t"))
	}
	if len(host) > 1 || len(length) > 1 || len(coding) > 1 || len(length)+len(coding) > 1 {
		return f, errAmbiguous
	}
	if a, absolute := authority(target); absolute && (len(host) == 0 || !strings.EqualFold(a, host[0])) {
		return f, errAmbiguous
	}
	if len(coding) == 1 {
		f.chunked = strings.EqualFold(coding[0], "chunked")
		if !f.chunked {
			return f, errAmbiguous
		}
	}
	if len(length) == 1 {
		if f.length, ok = decimal(length[0]); !ok {
			return f, errAmbiguous
		}
	}
	return f, nil
}

// requestTarget is the middle of METHOD SP TARGET SP VERSION.
func requestTarget(line []byte) (string, bool) {
	parts := strings.Split(string(line), " ")
	if len(parts) != 3 || !isToken([]byte(parts[0])) || parts[1] == "" {
		return "", false
	}
	return parts[1], parts[2] == "HTTP/1.1" || parts[2] == "HTTP/1.0"
}

// authority is the host of an absolute-form target.
func authority(target string) (string, bool) {
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || strings.ContainsAny(scheme, "/?") {
		return "", false
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	return rest, true
}

func decimal(s string) (int64, bool) {
	for _, c := range s {
		if c < '0' || c > '9' { // ParseInt would take a sign
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// isToken is RFC 9110's token.
func isToken(b []byte) bool {
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return len(b) > 0
}
