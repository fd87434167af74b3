package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/wpfs/wpfs/fs/object/seal"
)

// keyCommandMax is how long object.encryption_key_command may take.
const keyCommandMax = 30 * time.Second

// loadKeys reads the keys that the bucket is encrypted with: none, unless the
// configuration names a file or a command.
func loadKeys(ctx context.Context, c ObjectConfig) (seal.Keys, error) {
	var text []byte
	var err error
	key := "object.encryption_key_file"
	switch {
	case c.EncryptionKeyFile != "":
		text, err = readKeyFile(c.EncryptionKeyFile)
	case c.EncryptionKeyCommand != "":
		key = "object.encryption_key_command"
		text, err = runKeyCommand(ctx, c.EncryptionKeyCommand)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, problem(CodeConfig, err, key+" gives no key", "")
	}
	keys, err := seal.ParseKeys(text)
	if err != nil {
		return nil, problem(CodeConfig, err, key+" gives no usable key", "")
	}
	return keys, nil
}

// readKeyFile refuses a file that others than its owner can read.
func readKeyFile(name string) ([]byte, error) {
	st, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w; make a key with: (umask 077; openssl rand -hex 32 > %s), keep a copy outside of the cluster, and give all nodes the same file", err, name)
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", name)
	case st.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read by others (mode %04o); run chmod 600 %s", name, st.Mode().Perm(), name)
	}
	return os.ReadFile(name)
}

// runKeyCommand runs a shell command whose output has the keys, for keys that
// another service guards.
func runKeyCommand(ctx context.Context, command string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, keyCommandMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.WaitDelay = time.Second
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("it has not ended after %v", keyCommandMax)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	return out, nil
}
