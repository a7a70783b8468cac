// SPDX-License-Identifier: Apache-2.0

package sharedconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// A codec translates between a value and the documents of its keys. A missing key has a nil document.
type codec[T any] interface {
	// decode returns the value of documents.
	decode(documents []*string) (T, error)
	// encode returns the document of the last key that changes the value is into want.
	encode(documents []*string, is, want T) (string, error)
}

// A text is a codec for one key, with the functions of a Config.
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

func (c text[T]) encode(_ []*string, _, want T) (string, error) { return c.to(want) }

// Layers is a codec for JSON documents. It leaves the fields of a document that T lacks as they are.
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
	// Decode into a new value, because the data that the default refers to must not change.
	if err := json.Unmarshal(whole, &v); err != nil {
		return v, err
	}
	used, err := tree(v)
	if err != nil {
		return v, err
	}
	return v, ambiguous(merged, used)
}

func (c layers[T]) encode(documents []*string, is, want T) (string, error) {
	to, err := tree(want)
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
	// A value that replaces a null may reveal fields of a lower layer that the null hid. So compare again.
	for range 2 {
		from, err := tree(is)
		if err != nil {
			return "", err
		}
		patch, differs := difference(from, to)
		if !differs && document != nil {
			break
		}
		own = merge(own, patch, true) // a null in the document must hide the lower layers
		b, err := json.Marshal(own)
		if err != nil {
			return "", err
		}
		s := string(b)
		document = &s
		if is, err = c.decode(append(slices.Clone(below), document)); err != nil {
			break // the caller validates the document and finds the error
		}
	}
	return *document, nil
}

// ambiguous returns an error if the layers have a field under two names that differ only in case. For
// encoding/json they are the same field, and the last name in the alphabet would win instead of the last layer. The
// decoded value, used, has both names if they are keys of a map and not fields.
func ambiguous(merged, used any) error {
	m, _ := merged.(map[string]any)
	u, ok := used.(map[string]any)
	if !ok {
		return nil // T lacks the field
	}
	spelt := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		first, twice := spelt[strings.ToLower(name)]
		_, hasFirst := u[first]
		_, has := u[name]
		if twice && !(hasFirst && has) {
			return fmt.Errorf("%q and %q are two spellings of one field", first, name)
		}
		spelt[strings.ToLower(name)] = name
		if err := ambiguous(m[name], u[name]); err != nil {
			return err
		}
	}
	return nil
}

// tree returns a value in the types of JSON: nil, maps, slices, strings, numbers and booleans.
func tree(v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return parse(string(b))
}

func parse(document string) (v any, err error) {
	d := json.NewDecoder(strings.NewReader(document))
	d.UseNumber() // a float64 cannot represent every integer
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("the document has more than one JSON value")
	}
	return v, nil
}

// merge returns base with a patch applied, as in RFC 7396. If nulls is set, the nulls of the patch stay. merge
// changes neither argument.
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

// difference returns the patch that changes from into to, and whether they differ.
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
