// SPDX-License-Identifier: Apache-2.0

// Package restore is the subcommand "coteried restore": it makes the data directory of a coteried from the data of an
// etcd. Its flags are those of "etcdutl snapshot restore".
package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
	"github.com/coterie-kv/coterie/etcdapi/internal/subcommand"
)

const description = `Makes the data directory of a member of a new cluster, which begins with the data of an etcd: keys with their
revisions, leases, users and roles. The source is a snapshot, or the data directory of an etcd that SIGTERM has stopped.
Call it once for each member, with the same source and the same --initial-cluster.`

// settings are the flags.
type settings struct {
	dataDir, fromWALDir string
	advertise           string
	members             bootstrap.Flags
	skipHashCheck       bool
	bump                uint64
	markCompacted       bool
}

// Run runs the subcommand, and returns the exit code.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return subcommand.Exit(stderr, run(ctx, args, stdout))
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	s, source, err := parse(args, stdout)
	if err != nil {
		return err
	}
	plan, err := bootstrap.New(s.members)
	if err != nil {
		return &subcommand.UsageError{Err: err}
	}
	if err := requireEmpty(s.dataDir); err != nil {
		return err
	}
	c, err := etcdsnapshot.Read(ctx, source, s.options()...)
	if err != nil {
		return err
	}
	cfg := plan.Config(s.dataDir)
	cfg.Addr = cfg.Advertise // the check of the configuration needs an address, and nothing listens on it
	if err := etcdsnapshot.RestoreContents(ctx, c, cfg); err != nil {
		return err
	}
	// Save the plan after the data, because a directory with only a plan would begin as an empty cluster.
	if err := plan.Save(s.dataDir); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "restored %s to %s: %s\n", source, s.dataDir, summary(c))
	fmt.Fprintf(stdout, "start it with: coteried --name %s --data-dir %s, and its URLs\n", s.members.Name, s.dataDir)
	return nil
}

func parse(args []string, stdout io.Writer) (s settings, source string, err error) {
	set := subcommand.NewFlags("restore SNAPSHOT|DIRECTORY [flags]", description)
	set.StringVar(&s.members.Name, "name", "default", "`name` of this member")
	set.StringVar(&s.dataDir, "data-dir", "", "the data `directory` to make (default NAME.etcd)")
	set.StringVar(&s.members.Members, "initial-cluster", "", "all members of the new cluster, a `list` of NAME=URL (default this member)")
	set.StringVar(&s.members.Token, "initial-cluster-token", "etcd-cluster", "the `name` of the new cluster")
	set.StringVar(&s.advertise, "initial-advertise-peer-urls", "http://localhost:2380", "the peer `URLs` of this member")
	set.BoolVar(&s.skipHashCheck, "skip-hash-check", false, "accept a file without a checksum, such as a copy of member/snap/db")
	set.Uint64Var(&s.bump, "bump-revision", 0, "raise the revision by this `number`")
	set.BoolVar(&s.markCompacted, "mark-compacted", false, "compact the history; required by --bump-revision, and not allowed without it")
	set.StringVar(&s.fromWALDir, "from-wal-dir", "", "the `directory` of the write-ahead log of the etcd, if it had --wal-dir")
	rest, err := subcommand.Parse(set, args, stdout)
	switch {
	case err != nil:
		return s, "", err
	case len(rest) != 1:
		return s, "", subcommand.Usage("restore requires exactly one argument, a snapshot or the data directory of an etcd")
	case s.markCompacted != (s.bump > 0):
		return s, "", subcommand.Usage("--mark-compacted and --bump-revision must be given together")
	}
	s.dataDir = cmp.Or(s.dataDir, s.members.Name+".etcd")
	s.members.AdvertiseURLs = strings.Split(s.advertise, ",")
	return s, rest[0], nil
}

func (s settings) options() []etcdsnapshot.Option {
	opts := []etcdsnapshot.Option{etcdsnapshot.WithBumpRevision(s.bump), etcdsnapshot.WithWALDir(s.fromWALDir)}
	if s.skipHashCheck {
		opts = append(opts, etcdsnapshot.WithSkipHashCheck())
	}
	return opts
}

// requireEmpty returns an error if a directory has files, because they may be those of an etcd. It allows the directory
// lost+found, which is in the root of a file system.
func requireEmpty(dir string) error {
	names, err := os.ReadDir(dir)
	names = slices.DeleteFunc(names, func(e fs.DirEntry) bool { return e.IsDir() && e.Name() == "lost+found" })
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(names) > 0:
		return fmt.Errorf("%w: %s is not empty: name another --data-dir, or move its files away", coterie.ErrDirNotEmpty, dir)
	}
	return nil
}

func summary(c *coterie.Contents) string {
	keys, leases, users := map[string]bool{}, 0, c.Auth()
	for kv := range c.Versions() {
		if kv.Version == 0 {
			delete(keys, kv.Key)
		} else {
			keys[kv.Key] = true
		}
	}
	for range c.Leases() {
		leases++
	}
	checked := "users are not checked"
	if users.Enabled {
		checked = "users are checked"
	}
	return fmt.Sprintf("revision %d, %d keys, %d leases, %d users and %d roles; %s",
		c.Revision(), len(keys), leases, len(users.Users), len(users.Roles), checked)
}
