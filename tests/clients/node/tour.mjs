// A tour of the token broker: get, consent, get, refresh, list, revoke.
//
//   TOKEN_BROKER_API_KEY=tb_… node tour.mjs 127.0.0.1:50051 --provider google --service gmail --user alice \
//     --api https://openidconnect.googleapis.com/v1/userinfo

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { connect, short } from './broker.mjs';

const text = { type: 'string' };
const { values, positionals } = parseArgs({
  options: { provider: text, service: text, user: text, api: text },
  allowPositionals: true,
});

/** One line about an answer of GetCredential or Refresh. Never the token itself. */
function show(answer) {
  if (answer.result === 'credential') {
    const { generation, account, key } = answer.credential;
    return `token of generation ${generation} for ${account?.label || key.user_id}`;
  }
  return `authorization required, ${short(answer.authorization_required.reason, 'AUTHORIZATION_REQUIRED_REASON')}`;
}

/** Uses the token as its type says; the HTTP status. */
async function callApi({ token_type, access_token }) {
  const response = await fetch(values.api, { headers: { authorization: `${token_type} ${access_token}` } });
  return response.status;
}

/** Polls until the user has answered. */
async function waitForConsent(broker, flow_id) {
  for (;;) {
    const { flow } = await broker.GetFlow({ flow_id });
    const status = short(flow.status, 'FLOW_STATUS');
    if (!['PENDING', 'RETURNED', 'EXCHANGING'].includes(status)) return status;
    await sleep(200);
  }
}

const broker = connect(positionals[0], process.env.TOKEN_BROKER_API_KEY);
const key = { provider: values.provider, user_id: values.user, service: values.service };

let answer = await broker.GetCredential({ key, begin_if_missing: { client_state: 'tour' } });
console.log('get:', show(answer));
if (answer.result === 'authorization_required') {
  const { flow } = answer.authorization_required;
  console.log('link:', flow.authorization_url);
  console.log('consent:', await waitForConsent(broker, flow.flow_id));
  answer = await broker.GetCredential({ key });
  console.log('get:', show(answer));
}
console.log('api:', await callApi(answer.credential));

// As if the API had answered 401: name the generation that did not work.
const used = answer.credential;
const newer = await broker.Refresh({ key, expected_generation: used.generation });
console.log('refresh:', show(newer));
const again = await broker.Refresh({ key, expected_generation: used.generation });
console.log('refresh again:', show(again));
assert.equal(again.credential.access_token, newer.credential.access_token);
assert.notEqual(newer.credential.access_token, used.access_token);
console.log('api:', await callApi(newer.credential));

for (const row of (await broker.ListCredentials({ user_id: values.user })).credentials) {
  const status = short(row.status, 'CREDENTIAL_STATUS');
  console.log(`list: ${row.user_id} at ${row.provider}, ${row.services.join(', ')}: ${status}`);
}

const revoked = await broker.Revoke({ key });
console.log('revoke:', short(revoked.provider_revocation, 'PROVIDER_REVOCATION'));
console.log('api:', await callApi(newer.credential));
console.log('get:', show(await broker.GetCredential({ key })));
broker.close();
