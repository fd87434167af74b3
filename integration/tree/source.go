package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// EnvSource names a directory to use as the test tree, or a .deb to unpack.
const EnvSource = "WPFS_TEST_TREE"

// Source provides a real tree to copy: what EnvSource names, else Debian's
// package wordpress (about 3,400 files), else a part of Go's standard library.
// dir is an empty directory for what has to be unpacked or copied. note says
// in a sentence what the tree is; it belongs in the log, because figures from
// different trees cannot be compared.
func Source(ctx context.Context, dir string) (root, note string, err error) {
	deb := os.Getenv(EnvSource)
	if deb != "" {
		st, err := os.Stat(deb)
		if err != nil {
			return "", "", fmt.Errorf("test tree from %s: %w", EnvSource, err)
		}
		if st.IsDir() {
			return deb, "tree from " + EnvSource + "=" + deb, nil
		}
	}
	if deb == "" {
		deb, err = download(ctx, dir)
		if err != nil {
			root, lerr := library(ctx, dir)
			return root, fmt.Sprintf("Go's standard library, because Debian's wordpress is not to be had (%v)", err), lerr
		}
	}
	root = filepath.Join(dir, "wordpress")
	if out, err := exec.CommandContext(ctx, "dpkg", "-x", deb, root).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("unpack %s: %w: %s", deb, err, out)
	}
	return root, "Debian's " + filepath.Base(deb), nil
}

func download(ctx context.Context, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "wordpress")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download wordpress: %w: %s", err, strings.TrimSpace(string(out)))
	}
	debs, err := filepath.Glob(filepath.Join(dir, "wordpress_*.deb"))
	if err == nil && len(debs) == 0 {
		err = errors.New("apt-get download wordpress left no file")
	}
	if err != nil {
		return "", err
	}
	return debs[0], nil
}

// library copies some packages of Go's standard library: a few thousand small
// files in nested directories.
func library(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	src := filepath.Join(strings.TrimSpace(string(out)), "src")
	root := filepath.Join(dir, "golib")
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", err
	}
	for _, p := range []string{"net", "crypto", "encoding", "cmd/compile", "cmd/link"} {
		to := filepath.Join(root, filepath.Dir(p))
		if err := os.MkdirAll(to, 0o755); err != nil {
			return "", err
		}
		if out, err := exec.CommandContext(ctx, "cp", "-a", filepath.Join(src, p), to).CombinedOutput(); err != nil {
			return "", fmt.Errorf("cp -a %s: %w: %s", p, err, out)
		}
	}
	return root, nil
}
