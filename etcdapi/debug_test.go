// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/etcdapi"
)

// A program does not publish its profiles because of an import.
func TestDebugPathsAreOffByDefault(t *testing.T) {
	n := open(t)
	for _, base := range []string{"http://" + serve(t, n), "http://" + serveMetrics(t, n)} {
		for _, path := range []string{"vars", "pprof/", "pprof/heap", "pprof/cmdline", "pprof/profile?seconds=1", "requests", "events"} {
			code, _, _ := do(t, "GET", base+"/debug/"+path, "")
			require.Equal(t, http.StatusNotFound, code, path)
		}
	}
	_, pattern := http.DefaultServeMux.Handler(&http.Request{Method: "GET", URL: &url.URL{Path: "/debug/pprof/heap"}})
	require.Empty(t, pattern, "nothing that etcdapi imports has registered the profiles")
}

func TestDebugVars(t *testing.T) {
	url := "http://" + serve(t, open(t), etcdapi.WithDebugVars()) + "/debug/vars"
	code, text, h := do(t, "GET", url, "")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "application/json; charset=utf-8", h.Get("Content-Type"))
	var vars map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &vars))
	require.Contains(t, vars, "memstats")
	require.Contains(t, vars, "cmdline")
	code, _, _ = do(t, "POST", url, "")
	require.Equal(t, http.StatusMethodNotAllowed, code)
}

func TestProfiles(t *testing.T) {
	url := "http://" + serve(t, open(t), etcdapi.WithPprof()) + "/debug/pprof/"
	code, text, _ := do(t, "GET", url, "")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, text, "goroutine?debug=1")
	for _, name := range []string{"heap", "goroutine", "allocs", "block", "mutex", "threadcreate", "profile?seconds=0.2"} {
		code, text, _ := do(t, "GET", url+name, "")
		require.Equal(t, http.StatusOK, code, name)
		profile, err := gzip.NewReader(strings.NewReader(text)) // the format of go tool pprof
		require.NoError(t, err, name)
		all, err := io.ReadAll(profile)
		require.NoError(t, err, name)
		require.NotEmpty(t, all, name)
	}
	code, text, _ = do(t, "GET", url+"goroutine?debug=2", "")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, text, "goroutine ")
	code, text, _ = do(t, "GET", url+"trace?seconds=0.1", "")
	require.Equal(t, http.StatusOK, code)
	require.True(t, strings.HasPrefix(text, "go 1."), "the format of go tool trace")
	_, text, _ = do(t, "GET", url+"cmdline", "")
	require.Contains(t, text, "etcdapi.test")
	code, _, _ = do(t, "GET", url+"none", "")
	require.Equal(t, http.StatusNotFound, code)
}

func TestTraces(t *testing.T) {
	url := "http://" + serve(t, open(t), etcdapi.WithTraces()) + "/debug/"
	for _, page := range []string{"requests", "events"} {
		code, text, _ := do(t, "GET", url+page, "")
		require.Equal(t, http.StatusOK, code, page)
		require.Contains(t, text, "/debug/"+page)
	}
}
