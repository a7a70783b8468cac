// SPDX-License-Identifier: Apache-2.0

package sharedconfig

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// A codec makes a value of what is stored under the keys, nil for a key that there is not, and
// tells what the last key has to have for the value to become another.
type codec[T any] interface {
	decode(documents []*string) (T, error)
	encode(documents []*string, is, shall T) (string, error)
}

// A text is a codec made of functions, for one key.
type text[T any] struct {
	fallback T
	from     func(string) (T, error)
	to       func(T) (string, error)
}

func (c text[T]) decode(documents []*string) (T, error) {
	if documents[0] == nil {
		return c.fallback, nil
	}
	return c.from(*documents[0])
}

func (c text[T]) encode(_ []*string, _, shall T) (string, error) { return c.to(shall) }

// Layers is a codec of JSON documents. What one program does not know of a document, since its type
// lacks the field, it leaves as it is.
type layers[T any] struct{ fallback T }

func (c layers[T]) decode(documents []*string) (v T, err error) {
	merged, err := tree(c.fallback)
	if err != nil {
		return v, err
	}
	for _, d := range documents {
		if d == nil {
			continue
		}
		layer, err := parse(*d)
		if err != nil {
			return v, err
		}
		merged = merge(merged, layer, false)
	}
	whole, err := json.Marshal(merged)
	if err != nil {
		return v, err
	}
	// Into a value of its own: what the default refers to must not be written to.
	if err := json.Unmarshal(whole, &v); err != nil {
		return v, err
	}
	used, err := tree(v)
	if err != nil {
		return v, err
	}
	return v, ambiguous(merged, used)
}

func (c layers[T]) encode(documents []*string, is, shall T) (string, error) {
	to, err := tree(shall)
	if err != nil {
		return "", err
	}
	below, document := documents[:len(documents)-1], documents[len(documents)-1]
	var own any = map[string]any{}
	if document != nil {
		if own, err = parse(*document); err != nil {
			return "", err
		}
	}
	// What takes the place of a null may let fields show that the null hid: so it looks again.
	for range 2 {
		from, err := tree(is)
		if err != nil {
			return "", err
		}
		patch, differs := difference(from, to)
		if !differs && document != nil {
			break
		}
		own = merge(own, patch, true) // a null in it has to hide what is below
		b, err := json.Marshal(own)
		if err != nil {
			return "", err
		}
		s := string(b)
		document = &s
		if is, err = c.decode(append(slices.Clone(below), document)); err != nil {
			break // as whoever validates it finds
		}
	}
	return *document, nil
}

// ambiguous returns an error if the layers have a field by two names that differ in case alone. To
// encoding/json they are the same, of which the last in the alphabet would win, and not the last
// layer. What was made of them, used, has both if they are not fields but keys of a map.
func ambiguous(merged, used any) error {
	m, _ := merged.(map[string]any)
	u, ok := used.(map[string]any)
	if !ok {
		return nil // the program does not know it
	}
	spelt := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		first, twice := spelt[strings.ToLower(name)]
		_, hasFirst := u[first]
		_, has := u[name]
		if twice && !(hasFirst && has) {
			return fmt.Errorf("%q and %q are names of one field", first, name)
		}
		spelt[strings.ToLower(name)] = name
		if err := ambiguous(m[name], u[name]); err != nil {
			return err
		}
	}
	return nil
}

// tree returns a value as what JSON has: nil, maps, slices, strings, numbers and booleans.
func tree(v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return parse(string(b))
}

func parse(document string) (v any, err error) {
	d := json.NewDecoder(strings.NewReader(document))
	d.UseNumber() // a float64 cannot hold every integer
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one JSON value")
	}
	return v, nil
}

// merge returns base with a patch applied, as RFC 7396 says; with nulls, those of the patch stay.
// It changes neither.
func merge(base, patch any, nulls bool) any {
	fields, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	merged := map[string]any{}
	if b, ok := base.(map[string]any); ok {
		for name, v := range b {
			merged[name] = v
		}
	}
	for name, v := range fields {
		if v == nil && !nulls {
			delete(merged, name)
		} else {
			merged[name] = merge(merged[name], v, nulls)
		}
	}
	return merged
}

// difference returns the patch that makes one of the other, and whether there is a difference.
func difference(from, to any) (patch any, differs bool) {
	f, ok := from.(map[string]any)
	t, isMap := to.(map[string]any)
	if !ok || !isMap {
		return to, !reflect.DeepEqual(from, to)
	}
	fields := map[string]any{}
	for name, v := range t {
		if d, differs := difference(f[name], v); differs {
			fields[name] = d
		}
	}
	for name, v := range f {
		if _, ok := t[name]; !ok && v != nil {
			fields[name] = nil
		}
	}
	return fields, len(fields) > 0
}
