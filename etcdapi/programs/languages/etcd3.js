// SPDX-License-Identifier: Apache-2.0
//
// Uses an endpoint with the npm package etcd3: keys, watches, leases, locks, elections, transactions, users.
// The environment has ENDPOINT; for TLS, CACERT, CERT and KEY; and USER_NAME and PASSWORD if users are checked.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const { Etcd3 } = require('etcd3');

const env = process.env;
const options = { hosts: env.ENDPOINT };
if (env.CACERT) {
  options.credentials = {
    rootCertificate: fs.readFileSync(env.CACERT),
    certChain: env.CERT && fs.readFileSync(env.CERT),
    privateKey: env.KEY && fs.readFileSync(env.KEY),
  };
}

// withAuth returns the options of a client of a user.
const withAuth = (username, password) => ({ ...options, auth: { username, password } });

async function main() {
  const client = new Etcd3(env.USER_NAME ? withAuth(env.USER_NAME, env.PASSWORD) : options);

  // Keys.
  await client.put('js/a').value('1');
  await client.put('js/b').value('2');
  assert.strictEqual(await client.get('js/a').string(), '1');
  assert.deepStrictEqual(await client.getAll().prefix('js/').strings(), { 'js/a': '1', 'js/b': '2' });
  assert.deepStrictEqual(await client.getAll().prefix('js/').keys(), ['js/a', 'js/b']);
  assert.strictEqual(await client.get('js/none').string(), null);

  // A watch, and a deletion.
  const watcher = await client.watch().prefix('js/').create();
  const events = [];
  const seen = new Promise(resolve => {
    const add = event => {
      events.push(event);
      if (events.length === 2) resolve();
    };
    watcher.on('put', kv => add(`put ${kv.key} ${kv.value}`));
    watcher.on('delete', kv => add(`delete ${kv.key}`));
  });
  await client.put('js/a').value('3');
  await client.delete().key('js/b');
  await seen;
  assert.deepStrictEqual(events, ['put js/a 3', 'delete js/b']);
  await watcher.cancel();

  // A lease.
  const lease = client.lease(60);
  await lease.put('js/leased').value('v');
  await lease.keepaliveOnce();
  assert.strictEqual(await client.get('js/leased').string(), 'v');
  await lease.revoke();
  assert.strictEqual(await client.get('js/leased').string(), null);

  // A transaction takes one branch.
  const branch = async expected => {
    const r = await client.if('js/a', 'Value', '==', expected).then(client.put('js/a').value('4')).else(client.get('js/a')).commit();
    return r.succeeded;
  };
  assert.strictEqual(await branch('3'), true);
  assert.strictEqual(await branch('3'), false);
  assert.strictEqual(await client.get('js/a').string(), '4');

  // A lock excludes.
  const lock = client.lock('js/lock');
  await lock.acquire();
  await assert.rejects(client.lock('js/lock').acquire(), /lock/i);
  await lock.release();
  const again = await client.lock('js/lock').acquire();
  await again.release();

  // An election.
  const election = client.election('js/election');
  const campaign = election.campaign('me');
  await new Promise((resolve, reject) => campaign.on('elected', resolve).on('error', reject));
  assert.strictEqual(await election.leader(), 'me');
  await campaign.resign();

  // Errors have the text of etcd.
  await assert.rejects(client.put('').value('v'), /key is not provided/);

  // Users.
  if (!env.USER_NAME) {
    const range = client.range({ prefix: 'js/u/' });
    const role = client.role('js-role');
    await role.create();
    await role.grant({ permission: 'Readwrite', range });
    const user = client.user('js-user');
    await user.create('password');
    await user.addRole('js-role');
    const root = client.user('root');
    await root.create('secret');
    await root.addRole('root');
    await client.auth.authEnable();
    const limited = new Etcd3(withAuth('js-user', 'password'));
    await limited.put('js/u/k').value('v');
    assert.strictEqual(await limited.get('js/u/k').string(), 'v');
    await assert.rejects(limited.put('js/a').value('v'), /permission denied/);
    limited.close();
    const admin = new Etcd3(withAuth('root', 'secret'));
    await admin.auth.authDisable();
    admin.close();
  }
  client.close();
}

main().then(
  () => console.log('ok', require('etcd3/package.json').version, process.version),
  error => {
    console.error(error);
    process.exit(1);
  },
);
