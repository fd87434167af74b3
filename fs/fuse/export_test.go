package fuse

// Abort cuts a mounted directory's connection, for tests that clean up.
func Abort(dir string) error {
	m, ok, err := mountAt(dir)
	if err != nil || !ok || m.fstype != fsType {
		return err
	}
	return abort(m.minor)
}
