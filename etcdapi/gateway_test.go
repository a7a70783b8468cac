// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// A caller calls a method of an endpoint, such as "KV/Range", with a token, and returns the first answer.
type caller func(token, method string, request proto.Message) (proto.Message, error)

// callers runs a test with each kind of caller of an endpoint.
func callers(t *testing.T, addr string, test func(t *testing.T, call caller)) {
	t.Run("gRPC", func(t *testing.T) {
		conn := dial(t, addr)
		test(t, func(token, method string, request proto.Message) (proto.Message, error) {
			ctx := t.Context()
			if token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "token", token)
			}
			return callMethod(t, ctx, conn, method, request)
		})
	})
	t.Run("JSON", func(t *testing.T) {
		test(t, func(token, method string, request proto.Message) (proto.Message, error) {
			var headers []string
			if token != "" {
				headers = []string{"Authorization", token}
			}
			return callJSON(t, http.DefaultClient, "http://"+addr, method, request, headers...)
		})
	})
}

// findMethod returns the description of a method.
func findMethod(t testing.TB, method string) protoreflect.MethodDescriptor {
	t.Helper()
	service, name, _ := strings.Cut(method, "/")
	for _, s := range services {
		if string(s.Name()) != service {
			continue
		}
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(s)
		require.NoError(t, err)
		return d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name))
	}
	require.Fail(t, "there is no such service", method)
	return nil
}

// pathOf returns the path of a method in the gateway, or "".
func pathOf(t testing.TB, m protoreflect.MethodDescriptor) string {
	t.Helper()
	http, err := protoregistry.GlobalTypes.FindExtensionByName("google.api.http")
	require.NoError(t, err)
	options := m.Options().ProtoReflect()
	if !options.Has(http.TypeDescriptor()) {
		return ""
	}
	rule := options.Get(http.TypeDescriptor()).Message()
	return rule.Get(rule.Descriptor().Fields().ByName("post")).String()
}

// callJSON calls a method through the JSON gateway, and returns the first answer.
func callJSON(
	t testing.TB, c *http.Client, base, method string, request proto.Message, headers ...string,
) (proto.Message, error) {
	t.Helper()
	m := findMethod(t, method)
	body, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(request)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "POST", base+pathOf(t, m), strings.NewReader(string(body)))
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := c.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(line) == 0 {
		return nil, io.EOF
	}
	var answer struct {
		Code    codes.Code
		Message string
		Result  json.RawMessage
		Error   json.RawMessage
	}
	require.NoError(t, json.Unmarshal(line, &answer), "%s: %s", method, line)
	if m.IsStreamingServer() && len(answer.Error) > 0 && answer.Error[0] == '{' {
		require.NoError(t, json.Unmarshal(answer.Error, &answer))
	}
	if resp.StatusCode != http.StatusOK || answer.Code != codes.OK {
		return nil, status.Error(answer.Code, answer.Message)
	}
	if answer.Result != nil {
		line = answer.Result
	}
	response := newMessage(t, m.Output())
	require.NoError(t, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(line, response), "%s: %s", method, line)
	return response, watchError(response)
}

// watchError returns the reason of a watch that was not created.
func watchError(response proto.Message) error {
	if r, ok := response.(*pb.WatchResponse); ok && r.Canceled {
		return &reason{r.CancelReason}
	}
	return nil
}

// tokenOf returns a token for a user of protect.
func tokenOf(t testing.TB, addr, name string) string {
	t.Helper()
	r, err := pb.NewAuthClient(dial(t, addr)).Authenticate(t.Context(), &pb.AuthenticateRequest{Name: name, Password: name + "'s password"})
	require.NoError(t, err)
	return r.Token
}
