// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"encoding/json"
	"errors"
	"time"
)

// A textDuration is a duration that is text in JSON, such as "1.5s".
type textDuration time.Duration

func (d textDuration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *textDuration) UnmarshalText(text []byte) error {
	read, err := time.ParseDuration(string(text))
	*d = textDuration(read)
	return err
}

// A textError is an error that is text in JSON, where most errors are {}.
type textError struct{ error }

func (e textError) MarshalText() ([]byte, error) { return []byte(e.Error()), nil }

func (e *textError) UnmarshalText(text []byte) error {
	e.error = errors.New(string(text))
	return nil
}

// list returns a list that JSON has as [] if it is empty, and never as null.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// The types below are structs without their methods, which would call themselves.
type (
	getFields    GetResponse
	leasesFields LeasesResponse
	txnFields    TxnResponse
	watchFields  WatchResponse
	prefixFields PrefixState
	heldFields   HeldError
	limitFields  LimitError

	userFields  UserGetResponse
	usersFields UserListResponse
	roleFields  RoleGetResponse
	rolesFields RoleListResponse
)

// MarshalJSON returns the response as an object. IDs are text, and a list is never null.
func (r GetResponse) MarshalJSON() ([]byte, error) {
	r.KVs = list(r.KVs)
	return json.Marshal(getFields(r))
}

// MarshalJSON returns the response as an object. IDs are text, and a list is never null.
func (r LeasesResponse) MarshalJSON() ([]byte, error) {
	r.Leases = list(r.Leases)
	return json.Marshal(leasesFields(r))
}

// MarshalJSON returns the response as an object. IDs are text, and a list is never null.
func (r UserGetResponse) MarshalJSON() ([]byte, error) {
	r.Roles = list(r.Roles)
	return json.Marshal(userFields(r))
}

// MarshalJSON returns the response as an object. IDs are text, and a list is never null.
func (r UserListResponse) MarshalJSON() ([]byte, error) {
	r.Users = list(r.Users)
	return json.Marshal(usersFields(r))
}

// MarshalJSON returns the response as an object. IDs are text, and a list is never null.
func (r RoleGetResponse) MarshalJSON() ([]byte, error) {
	r.Permissions = list(r.Permissions)
	return json.Marshal(roleFields(r))
}

// MarshalJSON returns the response as an object. IDs are text, and a list is never null.
func (r RoleListResponse) MarshalJSON() ([]byte, error) {
	r.Roles = list(r.Roles)
	return json.Marshal(rolesFields(r))
}

// MarshalJSON returns the response as an object. IDs are text, and a list is never null.
func (r TxnResponse) MarshalJSON() ([]byte, error) {
	r.Responses = list(r.Responses)
	return json.Marshal(txnFields(r))
}

// MarshalJSON returns the response as an object. IDs are text, and a list is never null.
func (r WatchResponse) MarshalJSON() ([]byte, error) {
	r.Events = list(r.Events)
	return json.Marshal(watchFields(r))
}

// MarshalJSON returns the result as an object, in which the error is text. A list is never null.
func (r WatchResult) MarshalJSON() ([]byte, error) {
	r.Events = list(r.Events)
	return json.Marshal(struct {
		watchFields
		Err textError `json:"err,omitzero"`
	}{watchFields(r.WatchResponse), textError{r.Err}})
}

// MarshalJSON returns the state as an object. A list is never null, and neither are the key-values.
func (s PrefixState) MarshalJSON() ([]byte, error) {
	s.Events = list(s.Events)
	if s.KVs == nil {
		s.KVs = map[string]KeyValue{}
	}
	return json.Marshal(prefixFields(s))
}

// MarshalJSON returns the error as an object, in which Err is text.
func (e HeldError) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		heldFields
		Err textError `json:"err,omitzero"`
	}{heldFields(e), textError{e.Err}})
}

// MarshalJSON returns the error as an object, in which err is the text of the error.
func (e LimitError) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		limitFields
		Err textError `json:"err,omitzero"`
	}{limitFields(e), textError{e.err}})
}

// A grantJSON replaces the fields of a GrantResponse or a KeepAliveResponse that package encoding/json would
// not write as text.
type grantJSON struct {
	grantFields
	TTL textDuration `json:"ttl"`
}

// grantFields are a GrantResponse or a KeepAliveResponse without its methods, which would call themselves.
type grantFields GrantResponse

func (f grantFields) marshal() ([]byte, error) {
	return json.Marshal(grantJSON{f, textDuration(f.TTL)})
}

func (f *grantFields) unmarshal(b []byte) error {
	var read grantJSON
	if err := json.Unmarshal(b, &read); err != nil {
		return err
	}
	*f = read.grantFields
	f.TTL = time.Duration(read.TTL)
	return nil
}

// MarshalJSON returns the response as an object. IDs and the TTL are text.
func (r GrantResponse) MarshalJSON() ([]byte, error) { return grantFields(r).marshal() }

// UnmarshalJSON reads what MarshalJSON returns.
//
// Errors: those of package encoding/json.
func (r *GrantResponse) UnmarshalJSON(b []byte) error { return (*grantFields)(r).unmarshal(b) }

// MarshalJSON returns the response as an object. IDs and the TTL are text.
func (r KeepAliveResponse) MarshalJSON() ([]byte, error) { return grantFields(r).marshal() }

// UnmarshalJSON reads what MarshalJSON returns.
//
// Errors: those of package encoding/json.
func (r *KeepAliveResponse) UnmarshalJSON(b []byte) error { return (*grantFields)(r).unmarshal(b) }

// A timeToLiveJSON replaces the fields of a TimeToLiveResponse that package encoding/json would not write as
// text.
type timeToLiveJSON struct {
	timeToLiveFields
	TTL       textDuration `json:"ttl"`
	Remaining textDuration `json:"remaining"`
}

// timeToLiveFields are a TimeToLiveResponse without its methods, which would call themselves.
type timeToLiveFields TimeToLiveResponse

// MarshalJSON returns the response as an object. IDs and durations are text, and a list is never null.
func (r TimeToLiveResponse) MarshalJSON() ([]byte, error) {
	r.Keys = list(r.Keys)
	return json.Marshal(timeToLiveJSON{timeToLiveFields(r), textDuration(r.TTL), textDuration(r.Remaining)})
}

// UnmarshalJSON reads what MarshalJSON returns.
//
// Errors: those of package encoding/json.
func (r *TimeToLiveResponse) UnmarshalJSON(b []byte) error {
	var read timeToLiveJSON
	if err := json.Unmarshal(b, &read); err != nil {
		return err
	}
	*r = TimeToLiveResponse(read.timeToLiveFields)
	r.TTL, r.Remaining = time.Duration(read.TTL), time.Duration(read.Remaining)
	return nil
}
