// SPDX-License-Identifier: Apache-2.0

package sharedconfig

import "encoding/json"

// MarshalJSON returns the state as an object, in which the error is text.
func (c Current[T]) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Value    T      `json:"value"`
		Revision int64  `json:"revision"`
		Err      string `json:"err,omitempty"`
	}{c.Value, c.Revision, message(c.Err)})
}

// MarshalJSON returns the version as an object, in which the error is text.
func (v Version[T]) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Revision int64  `json:"revision"`
		Document string `json:"document"`
		Value    T      `json:"value"`
		Err      string `json:"err,omitempty"`
	}{v.Revision, v.Document, v.Value, message(v.Err)})
}

// MarshalJSON returns the error as an object, in which Err is text.
func (e RejectedError) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Key      string `json:"key"`
		Revision int64  `json:"revision"`
		Err      string `json:"err,omitempty"`
	}{e.Key, e.Revision, message(e.Err)})
}

// message returns the text of an error, and nothing for nil. Package encoding/json writes most errors as {}.
func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
