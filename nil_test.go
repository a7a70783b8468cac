// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1012 nil contexts are what is tested

package coterie_test

import (
	"context"
	"fmt"
	"go/ast"
	"go/types"
	"iter"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/dsync"
	"github.com/coterie-kv/coterie/mirror"
	"github.com/coterie-kv/coterie/queue"
	"github.com/coterie-kv/coterie/registry"
	"github.com/coterie-kv/coterie/sharedconfig"
	"github.com/coterie-kv/coterie/stm"
)

// A nilFixture has what calls with one nil argument need besides it.
type nilFixture struct {
	ctx context.Context // that is fine
	n   *coterie.Node
	s   *coterie.Session
	dir string
}

func each[A any](seq iter.Seq[A]) {
	for range seq {
		return
	}
}

func each2[A, B any](seq iter.Seq2[A, B]) {
	for range seq {
		return
	}
}

func decodeText(kv coterie.KeyValue) (string, error) { return kv.Value, nil }

// nilCalls has, for each exported function of nilTakers, calls with a nil argument.
//
//nolint:staticcheck // of contexts that are nil
var nilCalls = map[string][]func(f nilFixture){
	"coterie.Open":          {func(nilFixture) { coterie.Open(nil, coterie.Config{InMemory: true}) }},
	"coterie.OpenCluster":   {func(nilFixture) { coterie.OpenCluster(nil, 1, coterie.Config{InMemory: true}) }},
	"coterie.HealthHandler": {func(nilFixture) { coterie.HealthHandler(nil) }},
	"datadir.Inspect":       {func(f nilFixture) { datadir.Inspect(nil, f.dir) }},
	"datadir.InspectBackup": {func(f nilFixture) { datadir.InspectBackup(nil, strings.NewReader("")) }, func(f nilFixture) { datadir.InspectBackup(f.ctx, nil) }},
	"datadir.Convert":       {func(f nilFixture) { datadir.Convert(nil, f.dir, nil) }},
	"datadir.Recover":       {func(f nilFixture) { datadir.Recover(nil, f.dir) }},
	"coterie.RestoreBackup": {
		func(f nilFixture) { coterie.RestoreBackup(nil, strings.NewReader(""), coterie.Config{Dir: f.dir}) },
		func(f nilFixture) { coterie.RestoreBackup(f.ctx, nil, coterie.Config{Dir: f.dir}) },
	},
	"coterie.NewSession": {
		func(f nilFixture) { coterie.NewSession(nil, f.n) }, func(f nilFixture) { coterie.NewSession(f.ctx, nil) },
		func(f nilFixture) { coterie.NewSession(f.ctx, f.n, nil) },
	},
	"coterie.VerifyMemberName":  {func(nilFixture) { coterie.VerifyMemberName(nil, coterie.Claim{}) }},
	"coterie.NewHolder":         {func(nilFixture) { coterie.NewHolder(nil) }},
	"coterie.Node.ContextError": {func(f nilFixture) { f.n.ContextError(nil) }},
	"coterie.NewMutex":          {func(f nilFixture) { coterie.NewMutex(nil, "nil").Lock(f.ctx) }},
	"coterie.NewElection":       {func(f nilFixture) { coterie.NewElection(nil, "nil").Campaign(f.ctx, "") }},
	"coterie.ResumeElection": {
		func(f nilFixture) { coterie.ResumeElection(nil, f.s, "nil") },
		func(f nilFixture) { coterie.ResumeElection(f.ctx, nil, "nil") },
	},
	"coterie.RunWithLock": {
		func(f nilFixture) { coterie.RunWithLock(nil, f.n, "nil", leadNothing) },
		func(f nilFixture) { coterie.RunWithLock(f.ctx, nil, "nil", leadNothing) },
		func(f nilFixture) { coterie.RunWithLock(f.ctx, f.n, "nil", nil) },
		func(f nilFixture) { coterie.RunWithLock(f.ctx, f.n, "nil", leadNothing, nil) },
	},
	"coterie.RunAsLeader": {
		func(f nilFixture) { coterie.RunAsLeader(nil, f.n, "nil", "", leadNothing) },
		func(f nilFixture) { coterie.RunAsLeader(f.ctx, nil, "nil", "", leadNothing) },
		func(f nilFixture) { coterie.RunAsLeader(f.ctx, f.n, "nil", "", nil) },
		func(f nilFixture) { coterie.RunAsLeader(f.ctx, f.n, "nil", "", leadNothing, nil) },
	},
	"coterie.WithOnError": {func(f nilFixture) {
		ctx, cancel := context.WithTimeout(f.ctx, time.Second)
		defer cancel()
		fail := func(context.Context, int64) error { return context.Canceled }
		coterie.RunAsLeader(ctx, f.n, "nil", "", fail, coterie.WithOnError(nil))
	}},
	"coterie.Follow":           {func(f nilFixture) { each2(coterie.Follow(nil, f.n, "nil")) }, func(f nilFixture) { each2(coterie.Follow(f.ctx, nil, "nil")) }},
	"coterie.ObserveElection":  {func(f nilFixture) { each2(coterie.ObserveElection(nil, f.n, "nil")) }, func(f nilFixture) { each2(coterie.ObserveElection(f.ctx, nil, "nil")) }},
	"coterie.ContextWithGuard": {func(nilFixture) { coterie.ContextWithGuard(nil, coterie.Comparison{}) }},
	"coterie.GuardFromContext": {func(nilFixture) { coterie.GuardFromContext(nil) }},
	"coterie.OpPut":            {func(nilFixture) { coterie.OpPut("k", "v", nil) }},
	"coterie.OpGet":            {func(nilFixture) { coterie.OpGet("k", nil) }},
	"coterie.OpDelete":         {func(nilFixture) { coterie.OpDelete("k", nil) }},

	"coterie.Cluster.Leader": {func(f nilFixture) {
		c, err := coterie.OpenCluster(f.ctx, 1, coterie.Config{InMemory: true})
		if err == nil {
			defer c.Close()
			c.Leader(nil)
		}
	}},
	"coterie.Node.Backup":             {func(f nilFixture) { f.n.Backup(nil, &strings.Builder{}) }, func(f nilFixture) { f.n.Backup(f.ctx, nil) }},
	"coterie.Node.Put":                {func(f nilFixture) { f.n.Put(nil, "k", "v") }, func(f nilFixture) { f.n.Put(f.ctx, "k", "v", nil) }},
	"coterie.Node.Delete":             {func(f nilFixture) { f.n.Delete(nil, "k") }, func(f nilFixture) { f.n.Delete(f.ctx, "k", nil) }},
	"coterie.Node.Get":                {func(f nilFixture) { f.n.Get(nil, "k") }, func(f nilFixture) { f.n.Get(f.ctx, "k", nil) }, func(f nilFixture) { f.n.Get(nil, "k", coterie.WithPrefix()) }},
	"coterie.Node.Range":              {func(f nilFixture) { each2(f.n.Range(nil, "k")) }, func(f nilFixture) { each2(f.n.Range(f.ctx, "k", nil)) }},
	"coterie.NewNamespace":            {func(nilFixture) { coterie.NewNamespace(nil, "nil").Put(context.Background(), "k", "v") }},
	"coterie.Namespace.Put":           {func(f nilFixture) { f.space().Put(nil, "k", "v") }, func(f nilFixture) { f.space().Put(f.ctx, "k", "v", nil) }},
	"coterie.Namespace.Delete":        {func(f nilFixture) { f.space().Delete(nil, "k") }, func(f nilFixture) { f.space().Delete(f.ctx, "k", nil) }},
	"coterie.Namespace.Get":           {func(f nilFixture) { f.space().Get(nil, "k") }, func(f nilFixture) { f.space().Get(f.ctx, "k", nil) }},
	"coterie.Namespace.Do":            {func(f nilFixture) { f.space().Do(nil, coterie.OpGet("k")) }},
	"coterie.Namespace.Range":         {func(f nilFixture) { each2(f.space().Range(nil, "k")) }, func(f nilFixture) { each2(f.space().Range(f.ctx, "k", nil)) }},
	"coterie.Namespace.Compact":       {func(f nilFixture) { f.space().Compact(nil, 1) }},
	"coterie.Namespace.Grant":         {func(f nilFixture) { f.space().Grant(nil, time.Hour) }, func(f nilFixture) { f.space().Grant(f.ctx, time.Hour, nil) }},
	"coterie.Namespace.Revoke":        {func(f nilFixture) { f.space().Revoke(nil, 1) }},
	"coterie.Namespace.KeepAliveOnce": {func(f nilFixture) { f.space().KeepAliveOnce(nil, f.s.Lease()) }},
	"coterie.Namespace.KeepAlive":     {func(f nilFixture) { f.space().KeepAlive(nil, f.s.Lease()) }},
	"coterie.Namespace.TimeToLive":    {func(f nilFixture) { f.space().TimeToLive(nil, f.s.Lease()) }},
	"coterie.Namespace.Leases":        {func(f nilFixture) { f.space().Leases(nil) }},
	"coterie.Namespace.Txn":           {func(f nilFixture) { f.space().Txn(nil).Then(coterie.OpPut("k", "v")).Commit() }},
	"coterie.Namespace.Watch":         {func(f nilFixture) { each2(f.space().Watch(nil, "k")) }, func(f nilFixture) { each2(f.space().Watch(f.ctx, "k", nil)) }},
	"coterie.Namespace.WatchChan":     {func(f nilFixture) { f.space().WatchChan(nil, "k") }, func(f nilFixture) { f.space().WatchChan(f.ctx, "k", nil) }},

	"coterie.UserView.Backup":        {func(f nilFixture) { f.user().Backup(nil, &strings.Builder{}) }, func(f nilFixture) { f.user().Backup(f.ctx, nil) }},
	"coterie.UserView.Put":           {func(f nilFixture) { f.user().Put(nil, "k", "v") }, func(f nilFixture) { f.user().Put(f.ctx, "k", "v", nil) }},
	"coterie.UserView.Delete":        {func(f nilFixture) { f.user().Delete(nil, "k") }, func(f nilFixture) { f.user().Delete(f.ctx, "k", nil) }},
	"coterie.UserView.Get":           {func(f nilFixture) { f.user().Get(nil, "k") }, func(f nilFixture) { f.user().Get(f.ctx, "k", nil) }},
	"coterie.UserView.Do":            {func(f nilFixture) { f.user().Do(nil, coterie.OpGet("k")) }},
	"coterie.UserView.Range":         {func(f nilFixture) { each2(f.user().Range(nil, "k")) }, func(f nilFixture) { each2(f.user().Range(f.ctx, "k", nil)) }},
	"coterie.UserView.Compact":       {func(f nilFixture) { f.user().Compact(nil, 1) }},
	"coterie.UserView.Grant":         {func(f nilFixture) { f.user().Grant(nil, time.Hour) }, func(f nilFixture) { f.user().Grant(f.ctx, time.Hour, nil) }},
	"coterie.UserView.Revoke":        {func(f nilFixture) { f.user().Revoke(nil, 1) }},
	"coterie.UserView.KeepAliveOnce": {func(f nilFixture) { f.user().KeepAliveOnce(nil, f.s.Lease()) }},
	"coterie.UserView.KeepAlive":     {func(f nilFixture) { f.user().KeepAlive(nil, f.s.Lease()) }},
	"coterie.UserView.TimeToLive":    {func(f nilFixture) { f.user().TimeToLive(nil, f.s.Lease()) }},
	"coterie.UserView.Leases":        {func(f nilFixture) { f.user().Leases(nil) }},
	"coterie.UserView.Txn":           {func(f nilFixture) { f.user().Txn(nil).Then(coterie.OpPut("k", "v")).Commit() }},
	"coterie.UserView.Watch":         {func(f nilFixture) { each2(f.user().Watch(nil, "k")) }, func(f nilFixture) { each2(f.user().Watch(f.ctx, "k", nil)) }},
	"coterie.NewWatchSet":            {func(nilFixture) { coterie.NewWatchSet(nil).Add(coterie.NewUncheckedView(nil), 1, "k") }},
	"coterie.WatchSet.Add": {
		func(f nilFixture) { coterie.NewWatchSet(f.n).Add(nil, 1, "k") },
		func(f nilFixture) { coterie.NewWatchSet(f.n).Add(f.user(), 1, "k", nil) },
	},
	"coterie.UserView.WatchChan":          {func(f nilFixture) { f.user().WatchChan(nil, "k") }, func(f nilFixture) { f.user().WatchChan(f.ctx, "k", nil) }},
	"coterie.UserView.AuthEnable":         {func(f nilFixture) { f.user().AuthEnable(nil) }},
	"coterie.UserView.AuthDisable":        {func(f nilFixture) { f.user().AuthDisable(nil) }},
	"coterie.UserView.AuthStatus":         {func(f nilFixture) { f.user().AuthStatus(nil) }},
	"coterie.UserView.UserAdd":            {func(f nilFixture) { f.user().UserAdd(nil, "u") }, func(f nilFixture) { f.user().UserAdd(f.ctx, "u", nil) }},
	"coterie.UserView.UserDelete":         {func(f nilFixture) { f.user().UserDelete(nil, "u") }},
	"coterie.UserView.UserChangePassword": {func(f nilFixture) { f.user().UserChangePassword(nil, "u", nil) }},
	"coterie.UserView.UserGrantRole":      {func(f nilFixture) { f.user().UserGrantRole(nil, "u", "r") }},
	"coterie.UserView.UserRevokeRole":     {func(f nilFixture) { f.user().UserRevokeRole(nil, "u", "r") }},
	"coterie.UserView.UserGet":            {func(f nilFixture) { f.user().UserGet(nil, "u") }},
	"coterie.UserView.UserList":           {func(f nilFixture) { f.user().UserList(nil) }},
	"coterie.UserView.RoleAdd":            {func(f nilFixture) { f.user().RoleAdd(nil, "r") }},
	"coterie.UserView.RoleDelete":         {func(f nilFixture) { f.user().RoleDelete(nil, "r") }},
	"coterie.UserView.RoleGrantPermission": {
		func(f nilFixture) { f.user().RoleGrantPermission(nil, "r", coterie.PermRead, "k") },
		func(f nilFixture) { f.user().RoleGrantPermission(f.ctx, "r", coterie.PermRead, "k", nil) },
	},
	"coterie.UserView.RoleRevokePermission": {
		func(f nilFixture) { f.user().RoleRevokePermission(nil, "r", "k") },
		func(f nilFixture) { f.user().RoleRevokePermission(f.ctx, "r", "k", nil) },
	},
	"coterie.UserView.RoleGet":     {func(f nilFixture) { f.user().RoleGet(nil, "r") }},
	"coterie.UserView.RoleList":    {func(f nilFixture) { f.user().RoleList(nil) }},
	"coterie.UserView.Check":       {func(f nilFixture) { f.user().Check(nil) }},
	"coterie.UserView.Hash":        {func(f nilFixture) { f.user().Hash(nil, 0) }},
	"coterie.UserView.RequireUser": {func(f nilFixture) { f.user().RequireUser(nil) }, func(f nilFixture) { f.user().RequireUser(f.ctx, nil) }},
	"coterie.UserView.RequireRoot": {func(f nilFixture) { f.user().RequireRoot(nil) }, func(f nilFixture) { f.user().RequireRoot(f.ctx, nil) }},
	"coterie.UserView.RequireRead": {func(f nilFixture) { f.user().RequireRead("k", nil) }},
	"coterie.NewUncheckedView":     {func(nilFixture) { coterie.NewUncheckedView(nil).Put(context.Background(), "k", "v") }},
	"coterie.NewUserView":          {func(nilFixture) { coterie.NewUserView(nil, "u").Put(context.Background(), "k", "v") }},

	"coterie.NewTxn":             {func(f nilFixture) { coterie.NewTxn(nil, f.n).Commit() }, func(f nilFixture) { coterie.NewTxn(f.ctx, nil).Commit() }},
	"coterie.Node.Do":            {func(f nilFixture) { f.n.Do(nil, coterie.OpGet("k")) }, func(f nilFixture) { f.n.Do(nil, coterie.OpPut("k", "v")) }},
	"coterie.Node.Compact":       {func(f nilFixture) { f.n.Compact(nil, 1) }},
	"coterie.Node.Grant":         {func(f nilFixture) { f.n.Grant(nil, time.Hour) }, func(f nilFixture) { f.n.Grant(f.ctx, time.Hour, nil) }},
	"coterie.Node.Revoke":        {func(f nilFixture) { f.n.Revoke(nil, 1) }},
	"coterie.Node.KeepAliveOnce": {func(f nilFixture) { f.n.KeepAliveOnce(nil, f.s.Lease()) }},
	"coterie.Node.KeepAlive":     {func(f nilFixture) { f.n.KeepAlive(nil, f.s.Lease()) }},
	"coterie.Node.TimeToLive":    {func(f nilFixture) { f.n.TimeToLive(nil, f.s.Lease()) }},
	"coterie.Node.Leases":        {func(f nilFixture) { f.n.Leases(nil) }},
	"coterie.Node.AuthEnable":    {func(f nilFixture) { f.n.AuthEnable(nil) }},
	"coterie.Node.AuthDisable":   {func(f nilFixture) { f.n.AuthDisable(nil) }},
	"coterie.Node.AuthStatus":    {func(f nilFixture) { f.n.AuthStatus(nil) }},
	"coterie.Node.NewToken":      {func(f nilFixture) { f.n.NewToken(nil, "u", 0, time.Hour) }},
	"coterie.Node.Authenticate": {
		func(f nilFixture) { f.n.Authenticate(nil, "u", func([]byte) error { return nil }) },
		func(f nilFixture) { f.n.Authenticate(f.ctx, "u", nil) },
	},
	"coterie.Node.UserAdd":            {func(f nilFixture) { f.n.UserAdd(nil, "u") }, func(f nilFixture) { f.n.UserAdd(f.ctx, "u", nil) }},
	"coterie.Node.UserDelete":         {func(f nilFixture) { f.n.UserDelete(nil, "u") }},
	"coterie.Node.UserChangePassword": {func(f nilFixture) { f.n.UserChangePassword(nil, "u", nil) }},
	"coterie.Node.UserGrantRole":      {func(f nilFixture) { f.n.UserGrantRole(nil, "u", "r") }},
	"coterie.Node.UserRevokeRole":     {func(f nilFixture) { f.n.UserRevokeRole(nil, "u", "r") }},
	"coterie.Node.UserGet":            {func(f nilFixture) { f.n.UserGet(nil, "u") }},
	"coterie.Node.UserList":           {func(f nilFixture) { f.n.UserList(nil) }},
	"coterie.Node.RoleAdd":            {func(f nilFixture) { f.n.RoleAdd(nil, "r") }},
	"coterie.Node.RoleDelete":         {func(f nilFixture) { f.n.RoleDelete(nil, "r") }},
	"coterie.Node.RoleGrantPermission": {
		func(f nilFixture) { f.n.RoleGrantPermission(nil, "r", coterie.PermRead, "k") },
		func(f nilFixture) { f.n.RoleGrantPermission(f.ctx, "r", coterie.PermRead, "k", nil) },
	},
	"coterie.Node.RoleRevokePermission": {
		func(f nilFixture) { f.n.RoleRevokePermission(nil, "r", "k") },
		func(f nilFixture) { f.n.RoleRevokePermission(f.ctx, "r", "k", nil) },
	},
	"coterie.Node.RoleGet":  {func(f nilFixture) { f.n.RoleGet(nil, "r") }},
	"coterie.Node.RoleList": {func(f nilFixture) { f.n.RoleList(nil) }},
	"coterie.Node.Members":  {func(f nilFixture) { f.n.Members(nil) }},
	"coterie.ReadBackup":    {func(f nilFixture) { coterie.ReadBackup(nil, strings.NewReader("")) }, func(f nilFixture) { coterie.ReadBackup(f.ctx, nil) }},
	"coterie.Node.Contents": {func(f nilFixture) { f.n.Contents(nil) }},
	"coterie.Contents.WriteBackup": {func(f nilFixture) {
		if c, err := f.n.Contents(f.ctx); err == nil {
			c.WriteBackup(nil, &strings.Builder{})
		}
	}, func(f nilFixture) {
		if c, err := f.n.Contents(f.ctx); err == nil {
			c.WriteBackup(f.ctx, nil)
		}
	}},
	"coterie.Node.UpdateMetadata":     {func(f nilFixture) { f.n.UpdateMetadata(nil, f.n.ID(), nil) }},
	"coterie.Node.CompareMembers":     {func(f nilFixture) { f.n.CompareMembers(nil) }},
	"coterie.UserView.Alarms":         {func(f nilFixture) { f.user().Alarms(nil) }, func(f nilFixture) { f.user().Alarms(f.ctx, nil) }},
	"coterie.UserView.RaiseAlarm":     {func(f nilFixture) { f.user().RaiseAlarm(nil, coterie.Alarm{Kind: coterie.AlarmNoSpace}) }},
	"coterie.UserView.ClearAlarm":     {func(f nilFixture) { f.user().ClearAlarm(nil, coterie.Alarm{Kind: coterie.AlarmNoSpace}) }},
	"coterie.Node.Alarms":             {func(f nilFixture) { f.n.Alarms(nil) }, func(f nilFixture) { f.n.Alarms(f.ctx, nil) }},
	"coterie.Node.RaiseAlarm":         {func(f nilFixture) { f.n.RaiseAlarm(nil, coterie.Alarm{Kind: coterie.AlarmNoSpace}) }},
	"coterie.Node.ClearAlarm":         {func(f nilFixture) { f.n.ClearAlarm(nil, coterie.Alarm{Kind: coterie.AlarmNoSpace}) }},
	"coterie.Node.UpdateMember":       {func(f nilFixture) { f.n.UpdateMember(nil, f.n.ID(), "x:1") }},
	"coterie.Node.AddMember":          {func(f nilFixture) { f.n.AddMember(nil, "x", "x:1") }},
	"coterie.Node.RemoveMember":       {func(f nilFixture) { f.n.RemoveMember(nil, 1) }},
	"coterie.Node.PromoteMember":      {func(f nilFixture) { f.n.PromoteMember(nil, 1) }, func(f nilFixture) { f.n.PromoteMember(f.ctx, 1, nil) }},
	"coterie.Node.TransferLeadership": {func(f nilFixture) { f.n.TransferLeadership(nil, 1) }},
	"coterie.Node.Leave":              {func(f nilFixture) { f.n.Leave(nil) }},
	"coterie.Node.Ready":              {func(f nilFixture) { f.n.Ready(nil) }},
	"coterie.Node.ClusterLeaders":     {func(f nilFixture) { each(f.n.ClusterLeaders(nil)) }},
	"coterie.Node.Check":              {func(f nilFixture) { f.n.Check(nil) }},
	"coterie.Node.Hash":               {func(f nilFixture) { f.n.Hash(nil, 0) }},
	"coterie.Node.Txn":                {func(f nilFixture) { f.n.Txn(nil).Then(coterie.OpPut("k", "v")).Commit() }},
	"coterie.Node.Watch":              {func(f nilFixture) { each2(f.n.Watch(nil, "k")) }, func(f nilFixture) { each2(f.n.Watch(f.ctx, "k", nil)) }},
	"coterie.Node.WatchChan":          {func(f nilFixture) { <-f.n.WatchChan(nil, "k") }, func(f nilFixture) { <-f.n.WatchChan(f.ctx, "k", nil) }},
	"coterie.Election.Campaign":       {func(f nilFixture) { coterie.NewElection(f.s, "nil").Campaign(nil, "") }},
	"coterie.Election.Proclaim":       {func(f nilFixture) { coterie.NewElection(f.s, "nil").Proclaim(nil, "") }},
	"coterie.Election.Resign":         {func(f nilFixture) { coterie.NewElection(f.s, "nil").Resign(nil) }},
	"coterie.Election.Observe":        {func(f nilFixture) { each2(coterie.NewElection(f.s, "nil").Observe(nil)) }},
	"coterie.Election.Leader":         {func(f nilFixture) { coterie.NewElection(f.s, "nil").Leader(nil) }},
	"coterie.Mutex.Lock":              {func(f nilFixture) { coterie.NewMutex(f.s, "nil").Lock(nil) }},
	"coterie.Mutex.TryLock":           {func(f nilFixture) { coterie.NewMutex(f.s, "nil").TryLock(nil) }},
	"coterie.Mutex.Unlock":            {func(f nilFixture) { coterie.NewMutex(f.s, "nil").Unlock(nil) }},
	"coterie.Mutex.WorkContext": {
		func(f nilFixture) { coterie.NewMutex(f.s, "nil").WorkContext(nil) },
		func(f nilFixture) {
			m := coterie.NewMutex(f.s, "nil-work")
			if err := m.Lock(f.ctx); err == nil {
				m.WorkContext(nil)
			}
		},
	},
	"coterie.Election.WorkContext": {func(f nilFixture) { coterie.NewElection(f.s, "nil").WorkContext(nil) }},
	"coterie.Mutex.Do": {
		func(f nilFixture) { coterie.NewMutex(f.s, "nil").Do(nil, leadNothing) },
		func(f nilFixture) { coterie.NewMutex(f.s, "nil-body").Do(f.ctx, nil) },
	},
	"coterie.Session.WorkContext":  {func(f nilFixture) { f.s.WorkContext(nil) }},
	"coterie.Session.CommitOrUndo": {func(f nilFixture) { f.s.CommitOrUndo(nil) }, func(f nilFixture) { f.s.CommitOrUndo(f.n.Txn(nil).Then(coterie.OpPut("k", "v"))) }},

	"dsync.NewBarrier":          {func(f nilFixture) { dsync.NewBarrier(nil, "nil").Wait(f.ctx) }},
	"dsync.NewCounter":          {func(f nilFixture) { dsync.NewCounter(nil, "nil").Get(f.ctx) }},
	"dsync.NewDoubleBarrier":    {func(f nilFixture) { dsync.NewDoubleBarrier(nil, "nil", 1).Enter(f.ctx) }},
	"dsync.NewOnce":             {func(f nilFixture) { dsync.NewOnce(nil, "nil").Do(f.ctx, outcome) }},
	"dsync.NewRWMutex":          {func(f nilFixture) { dsync.NewRWMutex(nil, "nil").Lock(f.ctx) }},
	"dsync.NewSemaphore":        {func(f nilFixture) { dsync.NewSemaphore(nil, "nil", 1).Acquire(f.ctx, 1) }},
	"dsync.NewSequence":         {func(f nilFixture) { dsync.NewSequence(nil, "nil").Append(f.ctx, "") }},
	"dsync.Barrier.Raise":       {func(f nilFixture) { dsync.NewBarrier(f.n, "nil").Raise(nil) }, func(f nilFixture) { dsync.NewBarrier(f.n, "nil").Raise(f.ctx, nil) }},
	"dsync.Barrier.Lift":        {func(f nilFixture) { dsync.NewBarrier(f.n, "nil").Lift(nil) }},
	"dsync.Barrier.Wait":        {func(f nilFixture) { dsync.NewBarrier(f.n, "nil").Wait(nil) }},
	"dsync.Counter.Add":         {func(f nilFixture) { dsync.NewCounter(f.n, "nil").Add(nil, 1) }},
	"dsync.Counter.Get":         {func(f nilFixture) { dsync.NewCounter(f.n, "nil").Get(nil) }},
	"dsync.DoubleBarrier.Enter": {func(f nilFixture) { dsync.NewDoubleBarrier(f.s, "nil", 1).Enter(nil) }},
	"dsync.Round.Leave": {func(f nilFixture) {
		r, err := dsync.NewDoubleBarrier(f.s, "nil", 1).Enter(f.ctx)
		if err == nil {
			defer r.Leave(f.ctx)
			r.Leave(nil)
		}
	}},
	"dsync.Once.Do": {
		func(f nilFixture) { dsync.NewOnce(f.s, "nil").Do(nil, outcome) },
		func(f nilFixture) { dsync.NewOnce(f.s, "nil-body").Do(f.ctx, nil) },
	},
	"dsync.RWMutex.Lock":     {func(f nilFixture) { dsync.NewRWMutex(f.s, "nil").Lock(nil) }},
	"dsync.RWMutex.TryLock":  {func(f nilFixture) { dsync.NewRWMutex(f.s, "nil").TryLock(nil) }},
	"dsync.RWMutex.RLock":    {func(f nilFixture) { dsync.NewRWMutex(f.s, "nil").RLock(nil) }},
	"dsync.RWMutex.TryRLock": {func(f nilFixture) { dsync.NewRWMutex(f.s, "nil").TryRLock(nil) }},
	"dsync.RWMutex.Unlock":   {func(f nilFixture) { m := dsync.NewRWMutex(f.s, "nil"); m.Lock(f.ctx); m.Unlock(nil) }},
	"dsync.RWMutex.RUnlock":  {func(f nilFixture) { m := dsync.NewRWMutex(f.s, "nil"); m.RLock(f.ctx); m.RUnlock(nil) }},
	"dsync.RWMutex.WorkContext": {
		func(f nilFixture) { dsync.NewRWMutex(f.s, "nil").WorkContext(nil) },
		func(f nilFixture) { m := dsync.NewRWMutex(f.s, "nil"); m.RLock(f.ctx); m.WorkContext(nil) },
	},
	"dsync.Semaphore.Release":     {func(f nilFixture) { m := dsync.NewSemaphore(f.s, "nil", 1); m.Acquire(f.ctx, 1); m.Release(nil) }},
	"dsync.Semaphore.WorkContext": {func(f nilFixture) { dsync.NewSemaphore(f.s, "nil", 1).WorkContext(nil) }},
	"dsync.Semaphore.Acquire":     {func(f nilFixture) { dsync.NewSemaphore(f.s, "nil", 1).Acquire(nil, 1) }},
	"dsync.Semaphore.TryAcquire":  {func(f nilFixture) { dsync.NewSemaphore(f.s, "nil", 1).TryAcquire(nil, 1) }},
	"dsync.Sequence.Append":       {func(f nilFixture) { dsync.NewSequence(f.n, "nil").Append(nil, "") }, func(f nilFixture) { dsync.NewSequence(f.n, "nil").Append(f.ctx, "", nil) }},

	"queue.New":              {func(f nilFixture) { queue.New(nil, "nil").TryDequeue(f.ctx) }},
	"queue.NewGate":          {func(f nilFixture) { queue.NewGate(nil, queue.Condition{}) }},
	"queue.Gate.Open":        {func(f nilFixture) { gate(f).Open(nil) }},
	"queue.Gate.Close":       {func(f nilFixture) { gate(f).Close(nil) }},
	"queue.Gate.Wait":        {func(f nilFixture) { gate(f).Wait(nil) }},
	"queue.Gate.Dequeue":     {func(f nilFixture) { gate(f).Dequeue(nil) }},
	"queue.Item.WorkContext": {func(f nilFixture) { item(f).WorkContext(nil) }},
	"queue.Item.Ack":         {func(f nilFixture) { item(f).Ack(nil) }},
	"queue.Item.Nack":        {func(f nilFixture) { item(f).Nack(nil) }},
	"queue.Queue.Enqueue":    {func(f nilFixture) { queue.New(f.s, "nil").Enqueue(nil, "") }, func(f nilFixture) { queue.New(f.s, "nil").Enqueue(f.ctx, "", nil) }},
	"queue.Queue.Dequeue":    {func(f nilFixture) { queue.New(f.s, "nil").Dequeue(nil) }},
	"queue.Queue.TryDequeue": {func(f nilFixture) { queue.New(f.s, "nil").TryDequeue(nil) }},
	"queue.Queue.Peek":       {func(f nilFixture) { queue.New(f.s, "nil").Peek(nil) }},
	"queue.Queue.Len":        {func(f nilFixture) { queue.New(f.s, "nil").Len(nil) }},

	"stm.Run": {
		func(f nilFixture) { stm.Run(nil, f.n, func(*stm.Tx) error { return nil }) },
		func(f nilFixture) { stm.Run(f.ctx, nil, func(*stm.Tx) error { return nil }) },
		func(f nilFixture) { stm.Run(f.ctx, f.n, nil) },
	},

	"mirror.New": {
		func(f nilFixture) { mirror.New(nil, f.n, "nil", decodeText) },
		func(f nilFixture) { mirror.New(f.ctx, nil, "nil", decodeText) },
		func(f nilFixture) { mirror.New[string](f.ctx, f.n, "nil", nil) },
		func(f nilFixture) { mirror.New(f.ctx, f.n, "nil", decodeText, nil) },
	},
	"mirror.GroupBy":            {func(f nilFixture) { mirror.New(f.ctx, f.n, "nil", decodeText, mirror.GroupBy[string](nil)) }},
	"mirror.Index.Follow":       {func(f nilFixture) { each2(index(f).Follow(nil)) }},
	"mirror.Index.WaitRevision": {func(f nilFixture) { index(f).WaitRevision(nil, 1<<60) }},
	"mirror.Snapshot.Group":     {func(f nilFixture) { each2(index(f).Snapshot().Group(nil, "")) }},

	"registry.NewPicker": {
		func(f nilFixture) { registry.NewPicker(nil, f.n, "nil") },
		func(f nilFixture) { registry.NewPicker(f.ctx, nil, "nil") },
		func(f nilFixture) { registry.NewPicker(f.ctx, f.n, "nil", nil) },
	},
	"registry.NewStaticPicker": {func(nilFixture) { registry.NewStaticPicker(nil, nil) }},
	"registry.Picker.Wait": {func(f nilFixture) {
		p, err := registry.NewPicker(f.ctx, f.n, "nil")
		if err == nil {
			p.Wait(nil)
		}
	}},
	"registry.Register": {
		func(f nilFixture) { registry.Register(nil, f.n, "nil", registry.Instance{ID: "a", Addr: "a:1"}) },
		func(f nilFixture) { registry.Register(f.ctx, nil, "nil", registry.Instance{ID: "a", Addr: "a:1"}) },
		func(f nilFixture) { registry.Register(f.ctx, f.n, "nil", registry.Instance{ID: "a", Addr: "a:1"}, nil) },
	},
	"registry.Resolve":             {func(f nilFixture) { registry.Resolve(nil, f.n, "nil") }, func(f nilFixture) { registry.Resolve(f.ctx, nil, "nil") }, func(f nilFixture) { registry.Resolve(f.ctx, f.n, "nil", nil) }},
	"registry.Follow":              {func(f nilFixture) { each2(registry.Follow(nil, f.n, "nil")) }, func(f nilFixture) { each2(registry.Follow(f.ctx, nil, "nil")) }},
	"registry.Transport.RoundTrip": {func(nilFixture) { new(registry.Transport).RoundTrip(nil) }},

	"sharedconfig.Open": {
		func(f nilFixture) { sharedconfig.Open(nil, f.n, sharedconfig.Config[int]{Keys: []string{"nil"}}) },
		func(f nilFixture) { sharedconfig.Open(f.ctx, nil, sharedconfig.Config[int]{Keys: []string{"nil"}}) },
	},
	"sharedconfig.Value.Update": {
		func(f nilFixture) { value(f).Update(nil, func(int) (int, error) { return 1, nil }) },
		func(f nilFixture) { value(f).Update(f.ctx, nil) },
	},
	"sharedconfig.Value.History":  {func(f nilFixture) { value(f).History(nil) }},
	"sharedconfig.Value.Rollback": {func(f nilFixture) { value(f).Rollback(nil, 1) }},
	"sharedconfig.Value.Follow":   {func(f nilFixture) { each2(value(f).Follow(nil)) }},
}

func (f nilFixture) space() *coterie.Namespace { return coterie.NewNamespace(f.n, "nil/") }

func (f nilFixture) user() *coterie.UserView { return coterie.NewUserView(f.n, "nil") }

func leadNothing(context.Context, int64) error { return nil }

func outcome(context.Context) (string, error) { return "", nil }

func gate(f nilFixture) *queue.Gate { return queue.NewGate(queue.New(f.s, "nil"), queue.Condition{}) }

func item(f nilFixture) *queue.Item {
	q := queue.New(f.s, "nil-items")
	if err := q.Enqueue(f.ctx, "item"); err != nil {
		panic(err)
	}
	i, err := q.Dequeue(f.ctx)
	if err != nil {
		panic(err)
	}
	return i
}

func index(f nilFixture) *mirror.Index[string] {
	x, err := mirror.New(f.ctx, f.n, "nil", decodeText)
	if err != nil {
		panic(err)
	}
	return x
}

func value(f nilFixture) *sharedconfig.Value[int] {
	v, err := sharedconfig.Open(f.ctx, f.n, sharedconfig.Config[int]{Keys: []string{"nil"}})
	if err != nil {
		panic(err)
	}
	context.AfterFunc(f.ctx, func() { v.Close() })
	return v
}

// nilTakers are the exported functions that take a context, a pointer, an interface of package io, or
// functions. A nil among variadic arguments counts where those are functions.
func nilTakers(t *testing.T) (names []string) {
	t.Helper()
	packages := []string{".", "datadir", "dsync", "queue", "stm", "mirror", "registry", "sharedconfig"}
	for _, s := range sources(t) {
		if s.test() || !slices.Contains(packages, path.Dir(s.path)) {
			continue
		}
		for _, d := range s.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !fn.Name.IsExported() {
				continue
			}
			name := s.ast.Name.Name + "."
			if fn.Recv != nil {
				recv, _, _ := strings.Cut(strings.TrimPrefix(types.ExprString(fn.Recv.List[0].Type), "*"), "[")
				if !ast.IsExported(recv) {
					continue
				}
				name += recv + "."
			}
			if slices.ContainsFunc(fn.Type.Params.List, func(p *ast.Field) bool {
				text := types.ExprString(p.Type)
				return strings.HasPrefix(text, "*") || strings.HasPrefix(text, "func") || text == "context.Context" ||
					strings.HasPrefix(text, "io.") || strings.HasPrefix(text, "...") && strings.HasSuffix(text, "Option")
			}) {
				names = append(names, name+fn.Name.Name)
			}
		}
	}
	return names
}

func TestHealthOfNoNodePanicsAtOnce(t *testing.T) {
	require.Panics(t, func() { coterie.HealthHandler(nil) })
}

// A nil argument is the caller's mistake: the call panics or returns an error, and nothing else of the
// program ends or hangs. A panic on another goroutine would end the tests.
func TestNilArgumentPanicsOnlyInTheCaller(t *testing.T) {
	missing := slices.DeleteFunc(nilTakers(t), func(name string) bool { return nilCalls[name] != nil })
	require.Empty(t, missing, "add their calls with a nil argument to nilCalls")
	dir := t.TempDir()
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		for name, calls := range nilCalls {
			for i, call := range calls {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				s, err := coterie.NewSession(ctx, n)
				require.NoError(t, err)
				begin := time.Now()
				func() {
					defer func() { _ = recover() }()
					call(nilFixture{ctx, n, s, fmt.Sprintf("%s/%s-%d", dir, name, i)})
				}()
				require.Less(t, time.Since(begin), time.Minute, "%s, call %d, waits for what never comes", name, i)
				cancel()
				synctest.Wait()
				require.NoError(t, s.Close())
				put(t, n, "k", "v")
			}
		}
	})
}
