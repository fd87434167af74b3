package main

import (
	"strings"
	"testing"
)

// TestWarnings: each thing worth a look is said, and makes nobody unhealthy.
func TestWarnings(t *testing.T) {
	for what, row := range map[string]struct {
		set  func(*Status)
		want string // "": no warning at all
	}{
		"three nodes":              {func(*Status) {}, ""},
		"one node":                 {func(s *Status) { s.Cluster.Members = 1 }, "one node: what close()"},
		"one node, with the store": {func(s *Status) { s.Cluster.Members, s.Content.Durability = 1, durabilityS3 }, "one node: losing it stops everything"},
		"one copy, with the store": {func(s *Status) { s.Content.Replicas, s.Content.Durability = 1, durabilityS3 }, ""},
		"two nodes":                {func(s *Status) { s.Cluster.Members = 2 }, "losing either stops writes"},
		"one copy":                 {func(s *Status) { s.Content.Replicas = 1 }, "cluster.replicas is 1"},
		"old backlog":              {func(s *Status) { s.Content.UploadAgeS = 61 }, "the oldest for 1m 1s"},
		"big backlog":              {func(s *Status) { s.Content.UploadBytes = 2 << 30 }, "2.0 GiB wait for the object store"},
		"backlog":                  {func(s *Status) { s.Content.UploadBytes, s.Content.UploadAgeS = 1<<30, 60 }, ""},
		"suspended":                {func(s *Status) { s.Content.ObjectSuspended = true }, "only probed"},
		"slowed":                   {func(s *Status) { s.Content.WritesSlowed = true }, "slowed down"},
		"refused":                  {func(s *Status) { s.Content.WritesRefused = "it is full" }, "writes are refused: it is full"},
		"corrupt":                  {func(s *Status) { s.Content.Corrupt = 3 }, "3 files of the cache were damaged"},
	} {
		s := Status{Cluster: ClusterStatus{Members: 3, LeaseValid: true, Leader: "a"}, Content: ContentStatus{Replicas: 2}}
		row.set(&s)
		s.judge()
		s.warn()
		if got := strings.Join(s.Warnings, "\n"); (row.want == "") != (got == "") || !strings.Contains(got, row.want) || len(s.Warnings) > 1 {
			t.Errorf("%s: %q, want %q", what, s.Warnings, row.want)
		}
		if !s.Healthy {
			t.Errorf("%s: not healthy: %q", what, s.Reasons)
		}
	}
}
