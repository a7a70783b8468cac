// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A coverage counts the parts of etcd's protocol that a test has reached on etcd: each field and each enum value of
// requests and responses, and each error. mu guards counts.
type coverage struct {
	mu     sync.Mutex
	counts map[class]int
}

// A class is a part of a method that counts as a whole.
type class struct{ method, part, outcome string }

// The outcomes of a part, besides the code of an error.
const (
	ok       = "OK"
	received = "received" // a part of a response
)

func newCoverage() *coverage { return &coverage{counts: map[class]int{}} }

// options returns the options of a connection. Its calls count.
func (c *coverage) options() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(c.unary), grpc.WithChainStreamInterceptor(c.stream)}
}

func (c *coverage) unary(ctx context.Context, method string, q, r any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, q, r, conn, opts...)
	c.note(method, q, r, err)
	return err
}

func (c *coverage) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, conn, method, opts...)
	if err != nil {
		return nil, err
	}
	return &coveredStream{s, c, method}, nil
}

// A coveredStream counts messages and the error of a stream.
type coveredStream struct {
	grpc.ClientStream
	*coverage
	method string
}

func (s *coveredStream) SendMsg(q any) error {
	s.note(s.method, q, nil, nil)
	return s.ClientStream.SendMsg(q)
}

func (s *coveredStream) RecvMsg(r any) error {
	err := s.ClientStream.RecvMsg(r)
	if !errors.Is(err, io.EOF) {
		s.note(s.method, nil, r, err)
	}
	return err
}

func (c *coverage) note(method string, request, response any, err error) {
	method = method[strings.LastIndexByte(method, '/')+1:]
	c.mu.Lock()
	defer c.mu.Unlock()
	outcome := ok
	if err != nil {
		outcome = status.Code(err).String()
		c.counts[class{method, "error", outcome + ": " + status.Convert(err).Message()}]++
	}
	if request != nil {
		c.counts[class{method, "", outcome}]++
	}
	if q, valid := request.(proto.Message); valid {
		c.parts(method, outcome, q.ProtoReflect())
	}
	if r, valid := response.(proto.Message); valid && err == nil {
		c.parts(method, received, r.ProtoReflect())
	}
}

// parts counts the fields of a message that are set, and those of the messages in it.
func (c *coverage) parts(method, outcome string, m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if !f.IsList() {
			c.part(method, outcome, f, v)
			return true
		}
		for i := range v.List().Len() {
			c.part(method, outcome, f, v.List().Get(i))
		}
		return true
	})
	if len(m.GetUnknown()) > 0 {
		c.counts[class{method, string(m.Descriptor().Name()) + " unknown field", outcome}]++
	}
}

func (c *coverage) part(method, outcome string, f protoreflect.FieldDescriptor, v protoreflect.Value) {
	name := partOf(f)
	switch {
	case f.Enum() != nil:
		name += fmt.Sprint("=", v.Enum())
		if known := f.Enum().Values().ByNumber(v.Enum()); known != nil {
			name = partOf(f) + "=" + string(known.Name())
		}
	case f.Kind() == protoreflect.Int64Kind && v.Int() < 0:
		name += "<0"
	case f.Message() != nil:
		c.parts(method, outcome, v.Message())
	case name == "WatchResponse.cancel_reason":
		c.counts[class{method, "error", "cancelled: " + v.String()}]++
	}
	c.counts[class{method, name, outcome}]++
}

func partOf(f protoreflect.FieldDescriptor) string {
	return string(f.Parent().Name()) + "." + string(f.Name())
}

// table returns the counts of all classes, except for the fields of headers, which every response has.
func (c *coverage) table() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	rows := map[string][]string{}
	for k, n := range c.counts {
		if strings.HasPrefix(k.part, "ResponseHeader.") {
			continue
		}
		row := k.method + "\t" + k.part
		rows[row] = append(rows[row], fmt.Sprintf("%s %d", k.outcome, n))
	}
	var lines []string
	for row, outcomes := range rows {
		slices.Sort(outcomes)
		lines = append(lines, row+"\t"+strings.Join(outcomes, ", "))
	}
	slices.Sort(lines)
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(lines, "\n"))
	w.Flush()
	return b.String()
}

// missing returns the parts of services that were never reached: fields and values of requests that succeed, and
// fields and values of responses. A part is a field of a message, in any method.
func (c *coverage) missing(services ...protoreflect.ServiceDescriptor) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	reached := map[string]bool{}
	for k := range c.counts {
		switch k.outcome {
		case ok, received:
			reached[k.part] = true
		}
		reached[k.method] = true
	}
	var missing []string
	seen := map[protoreflect.FullName]bool{}
	var message func(m protoreflect.MessageDescriptor)
	message = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] {
			return
		}
		seen[m.FullName()] = true
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if f.Message() != nil {
				message(f.Message())
			}
			parts := []string{partOf(f)}
			if f.Enum() != nil { // a field without presence does not show its default value
				parts = nil
				for v := range f.Enum().Values().Len() {
					if value := f.Enum().Values().Get(v); value.Number() != 0 {
						parts = append(parts, partOf(f)+"="+string(value.Name()))
					}
				}
			}
			for _, part := range parts {
				if !reached[part] {
					missing = append(missing, part)
				}
			}
		}
	}
	for _, s := range services {
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			if !reached[string(m.Name())] {
				missing = append(missing, string(s.Name())+"/"+string(m.Name()))
			}
			message(m.Input())
			message(m.Output())
		}
	}
	return missing
}

// count returns how often a method has had an outcome that contains a text.
func (c *coverage) count(part, outcome string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, times := range c.counts {
		if k.part == part && strings.Contains(k.outcome, outcome) {
			n += times
		}
	}
	return n
}

// check fails the test if it has not reached a part of services, or an error or a part that it names, and prints the
// table with -v.
func (c *coverage) check(t testing.TB, want wanted) {
	t.Helper()
	if testing.Verbose() {
		t.Logf("reached:\n%s", c.table())
	}
	for _, part := range c.missing(want.services...) {
		if _, explained := want.without[part]; !explained {
			t.Errorf("no request has reached %s", part)
		}
	}
	for part := range want.without {
		if c.count(part, ok) > 0 || c.count(part, received) > 0 {
			t.Errorf("%s was reached, although it is in the list of exceptions", part)
		}
	}
	for _, part := range want.parts {
		if c.count(part, "") == 0 {
			t.Errorf("no request has reached %s", part)
		}
	}
	for _, text := range want.errors {
		if c.count("error", text) == 0 {
			t.Errorf("no request has reached the error %q", text)
		}
	}
}

// A wanted is a list of the parts that a test must reach.
type wanted struct {
	services []protoreflect.ServiceDescriptor
	parts    []string          // beyond those of the services
	errors   []string          // texts, or parts of them
	without  map[string]string // parts of the services that it does not reach, and why
}
