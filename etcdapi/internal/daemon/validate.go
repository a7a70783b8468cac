// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxElectionMs = 50_000   // etcd's
	minElectionMs = 20       // coterie's
	maxRequest    = 64 << 20 // coterie's
)

// validate returns all errors in the settings.
func (s *Settings) validate() error {
	return errors.Join(s.checkListeners(), s.checkAdvertised(), s.checkCluster(), s.checkTimes(), s.checkRetention(), s.checkSecurity(), s.checkLog())
}

// checkListeners rejects URLs with a domain name, as etcd does, and addresses that are given twice.
func (s *Settings) checkListeners() error {
	var errs []error
	taken := map[string]string{}
	check := func(name string, urls urlList) {
		for _, u := range urls {
			if err := checkBind(u); err != nil {
				errs = append(errs, fmt.Errorf("--%s: %w", name, err))
			}
			if other, ok := taken[address(u)]; ok && u.Port() != "0" {
				errs = append(errs, fmt.Errorf("--%s: --%s has the address of %s, too", name, other, u))
			}
			taken[address(u)] = name
		}
	}
	check("listen-peer-urls", s.Listen.Peer)
	check("listen-client-urls", s.Listen.Client)
	check("listen-client-http-urls", s.Listen.ClientHTTP)
	check("listen-metrics-urls", s.Listen.Metrics)
	if len(s.Listen.Peer) == 0 || len(s.Listen.Client) == 0 {
		errs = append(errs, errors.New("--listen-peer-urls and --listen-client-urls need a URL each"))
	}
	if len(s.Listen.Peer) > 1 {
		errs = append(errs, fmt.Errorf("--listen-peer-urls has %d URLs: members listen on one, such as that of 0.0.0.0", len(s.Listen.Peer)))
	}
	for _, u := range s.Listen.Peer {
		if isUnix(u) {
			errs = append(errs, fmt.Errorf("--listen-peer-urls: %s: members talk over TCP, so the scheme must be http or https", u))
		}
	}
	return errors.Join(errs...)
}

func checkBind(u *url.URL) error {
	if isUnix(u) {
		if address(u) == "" {
			return fmt.Errorf("%s names no file", u)
		}
		return nil
	}
	host, _, err := net.SplitHostPort(u.Host)
	if err != nil {
		return err
	}
	if host != "localhost" && net.ParseIP(host) == nil {
		return fmt.Errorf("expected IP in URL for binding (%s)", u)
	}
	return nil
}

// address returns the address to listen on: host and port, or the name of a socket.
func address(u *url.URL) string {
	if isUnix(u) {
		return u.Host + u.Path
	}
	return u.Host
}

// checkAdvertised rejects URLs that cannot be dialled.
func (s *Settings) checkAdvertised() error {
	var errs []error
	check := func(name string, urls urlList) {
		for _, u := range urls {
			if isUnix(u) {
				continue
			}
			if host, _, err := net.SplitHostPort(u.Host); err != nil || host == "" {
				errs = append(errs, fmt.Errorf("--%s: unexpected empty host (%s)", name, u))
			}
		}
	}
	check("initial-advertise-peer-urls", s.Cluster.AdvertisePeer)
	check("advertise-client-urls", s.Listen.AdvertiseClient)
	if len(s.Cluster.AdvertisePeer) == 0 {
		errs = append(errs, errors.New("--initial-advertise-peer-urls needs a URL"))
	}
	if len(s.Listen.AdvertiseClient) == 0 {
		errs = append(errs, ErrAdvertiseClientURLs)
	}
	return errors.Join(errs...)
}

func (s *Settings) checkCluster() error {
	if s.Cluster.SRV != "" && s.Cluster.Members != "" {
		return ErrBootstrapFlags
	}
	if s.Name == "" {
		return errors.New("--name is empty")
	}
	if s.MaxRequest > maxRequest {
		return fmt.Errorf("--max-request-bytes is %d: a request may have 64 MiB at most", s.MaxRequest)
	}
	return nil
}

func (s *Settings) checkTimes() error {
	switch {
	case s.HeartbeatMs == 0:
		return errors.New("--heartbeat-interval must be >0 (set to 0ms)")
	case s.ElectionMs == 0:
		return errors.New("--election-timeout must be >0 (set to 0ms)")
	case s.Checks.HashTime <= 0:
		return fmt.Errorf("--compact-hash-check-time must be >0 (set to %v)", s.Checks.HashTime)
	case s.Checks.CorruptTime < 0:
		return fmt.Errorf("--corrupt-check-time is negative: %v", s.Checks.CorruptTime)
	case 5*s.HeartbeatMs > s.ElectionMs:
		return fmt.Errorf("--election-timeout[%vms] should be at least as 5 times as --heartbeat-interval[%vms]", s.ElectionMs, s.HeartbeatMs)
	case s.ElectionMs > maxElectionMs:
		return fmt.Errorf("--election-timeout[%vms] is too long, and should be set less than %vms", s.ElectionMs, maxElectionMs)
	case s.ElectionMs < minElectionMs:
		return fmt.Errorf("--election-timeout[%vms] is too short: it must be %vms at least", s.ElectionMs, minElectionMs)
	}
	return nil
}

func (s *Settings) checkRetention() error {
	_, _, err := s.retention()
	return err
}

// retention returns the history that --auto-compaction-retention keeps: an age or revisions. Both are 0 if it keeps all.
func (s *Settings) retention() (age time.Duration, revisions int64, err error) {
	switch s.CompactionMode {
	case "periodic":
		if hours, err := strconv.ParseInt(s.Retention, 10, 64); err == nil {
			if hours > int64(math.MaxInt64/time.Hour) { // the product would be another age
				return 0, 0, fmt.Errorf("--auto-compaction-retention is %d hours, and must be %d at most", hours, int64(math.MaxInt64/time.Hour))
			}
			age = time.Duration(hours) * time.Hour
		} else if age, err = time.ParseDuration(s.Retention); err != nil {
			return 0, 0, fmt.Errorf("--auto-compaction-retention: %w", err)
		}
	case "revision":
		if revisions, err = strconv.ParseInt(s.Retention, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("--auto-compaction-retention: %q is not a number of revisions: %w", s.Retention, err)
		}
	default:
		return 0, 0, fmt.Errorf("unknown auto-compaction-mode %q: it must be periodic or revision", s.CompactionMode)
	}
	if age < 0 || revisions < 0 {
		return 0, 0, fmt.Errorf("--auto-compaction-retention is negative: %s", s.Retention)
	}
	return age, revisions, nil
}

// checkSecurity rejects flags about certificates that contradict each other. It reads no file.
func (s *Settings) checkSecurity() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, k := range []struct {
		prefix string
		*Security
	}{{"", &s.Client}, {"peer-", &s.Peer}} {
		if (k.CertFile == "") != (k.KeyFile == "") {
			bad("--%scert-file and --%skey-file must both be present", k.prefix, k.prefix)
		}
		if k.ClientCertAuth && k.TrustedCAFile == "" && !(k.prefix != "" && k.Auto) {
			bad("--%sclient-cert-auth needs the CAs: set --%strusted-ca-file", k.prefix, k.prefix)
		}
		if len(k.AllowedCNs)+len(k.AllowedHostnames) > 0 && k.TrustedCAFile == "" {
			bad("allowed names in certificates need the CAs: set --%strusted-ca-file", k.prefix)
		}
		if len(k.AllowedCNs) > 0 && len(k.AllowedHostnames) > 0 {
			bad("--%scert-allowed-cn and --%scert-allowed-hostname exclude each other", k.prefix, k.prefix)
		}
	}
	if s.SelfSignedYears == 0 {
		bad("--self-signed-cert-validity must be >0")
	}
	errs = append(errs, s.checkTLS())
	for _, u := range slices.Concat(s.Listen.Client, s.Listen.ClientHTTP) {
		if usesTLS(u) && s.Client.CertFile == "" && !s.Client.Auto {
			bad("TLS key/cert (--cert-file, --key-file) must be provided for client url %s with HTTPS scheme", u)
		}
	}
	for _, u := range s.Listen.Peer {
		switch {
		case !usesTLS(u) || s.Peer.Auto:
		case s.Peer.CertFile == "":
			bad("TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url %s with HTTPS scheme", u)
		case s.Peer.TrustedCAFile == "":
			bad("--peer-trusted-ca-file is required with --peer-cert-file: members verify each other in both directions")
		}
	}
	for _, u := range s.Cluster.AdvertisePeer {
		if len(s.Listen.Peer) > 0 && usesTLS(u) != usesTLS(s.Listen.Peer[0]) {
			bad("--initial-advertise-peer-urls has %s, but --listen-peer-urls has %s: both must have TLS, or neither", u, s.Listen.Peer[0])
		}
	}
	return errors.Join(errs...)
}

func (s *Settings) checkLog() error {
	if s.Log.Logger != "zap" {
		return fmt.Errorf("unknown logger option %q: it must be zap", s.Log.Logger)
	}
	if _, err := logLevel(s.Log.Level); err != nil {
		return err
	}
	if f := s.Log.Format; f != "json" && f != "console" {
		return fmt.Errorf("unknown log-format %q: it must be json or console", f)
	}
	if m := s.Metrics; m != "basic" && m != "extensive" {
		return fmt.Errorf("unknown metrics %q: it must be basic or extensive", m)
	}
	if len(s.Log.Outputs) == 0 {
		return errors.New("--log-outputs is empty")
	}
	if len(s.Log.Outputs) > 1 && slices.Contains(s.Log.Outputs, "default") {
		return fmt.Errorf("multi logoutput for %q is not supported yet: %s", "default", strings.Join(s.Log.Outputs, ","))
	}
	return nil
}
