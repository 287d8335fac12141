// A strict OpenID Connect provider for the tests: refresh tokens rotate, and a second presentation of one ends its grant.
//
//   node server.mjs '{"access_token_seconds": 2}'
//
// It listens on a free loopback port and speaks JSON lines. On standard output: `listening` with the issuer first, then one
// line for each request to the token, revocation and userinfo endpoints and for each grant that dies. Tokens appear as the
// first 16 hex digits of their SHA-256. On standard input: {"sync": N} is answered by a line `sync` (everything that
// happened before it has been printed by then), {"set": {...}} changes options, and its end ends the server.

import { createHash, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

import { Provider } from 'oidc-provider';

import { MapAdapter } from './adapter.mjs';
import { consentPage, errorPage, loginPage } from './pages.mjs';

const options = {
  access_token_seconds: 3600,
  client_id: 'broker',
  client_secret: 'broker-secret',
  // Public keys in PEM: the client then signs assertions (private_key_jwt) and has no secret.
  client_keys: [],
  // Loopback redirect URIs of a native client match on any port (RFC 8252 section 7.3).
  redirect_uris: ['http://127.0.0.1/oauth/callback/oidc'],
  // Beside openid, offline_access, email and profile.
  scopes: ['mail.read', 'mail.send', 'calendar.read'],
  // Before a token request is looked at, so that calls overlap.
  token_delay_ms: 0,
  // The token and revocation endpoints answer 503 to everything.
  outage: false,
  ...JSON.parse(process.argv[2] ?? '{}'),
};

const users = new Map(
  ['alice', 'bob', 'carol'].map((name) => [
    name,
    { sub: `${name}-0001`, email: `${name}@example.test`, email_verified: true, name },
  ]),
);
const bySub = new Map([...users.values()].map((user) => [user.sub, user]));

// Standard output is the log's alone; the library prints notices there.
console.log = console.info = console.error;

const log = (event, fields) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
const digest = (token) => (token ? createHash('sha256').update(token).digest('hex').slice(0, 16) : null);

const presentedBefore = new Set();
let sequence = 0;

/** Logs what goes through the endpoints that a test counts. */
async function record(ctx, next) {
  const started = performance.now();
  const number = (sequence += 1);
  const watched = ['/token', '/token/revocation'].includes(ctx.path);
  if (watched && options.outage) {
    ctx.status = 503;
    log('outage', { path: ctx.path, number });
    return;
  }
  if (ctx.path === '/token' && options.token_delay_ms > 0) await sleep(options.token_delay_ms);
  await next();
  const times = { number, started_ms: started, ended_ms: performance.now() };
  const params = ctx.oidc?.params ?? {};
  const outcome = ctx.status < 400 ? 'ok' : (ctx.body?.error ?? String(ctx.status));
  if (ctx.oidc?.route === 'token') {
    const presented = digest(params.refresh_token);
    log('token', {
      ...times,
      grant_type: params.grant_type ?? null,
      presented,
      presented_before: presented !== null && presentedBefore.has(presented),
      outcome,
      issued_access: digest(ctx.body?.access_token),
      issued_refresh: digest(ctx.body?.refresh_token),
      user: ctx.oidc.account?.accountId ?? null,
      scope: ctx.body?.scope ?? null,
    });
    if (presented) presentedBefore.add(presented);
  } else if (ctx.oidc?.route === 'revocation') {
    log('revocation', { ...times, presented: digest(params.token), hint: params.token_type_hint ?? null, outcome });
  } else if (ctx.oidc?.route === 'userinfo') {
    log('userinfo', { ...times, outcome, user: ctx.oidc.account?.accountId ?? null });
  }
}

async function allowedPolicy(_ctx, client, token) {
  return token.clientId === client.clientId;
}

/** How the client shows who it is. */
function clientAuth() {
  if (options.client_keys.length === 0) return { client_secret: options.client_secret };
  const keys = options.client_keys.map((pem) => ({ ...createPublicKey(pem).export({ format: 'jwk' }), use: 'sig' }));
  return { token_endpoint_auth_method: 'private_key_jwt', jwks: { keys } };
}

function signingKeys() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig' }] };
}

function startProvider(issuer) {
  const provider = new Provider(issuer, {
    adapter: MapAdapter,
    clients: [
      {
        client_id: options.client_id,
        ...clientAuth(),
        application_type: 'native',
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
        redirect_uris: options.redirect_uris,
      },
    ],
    scopes: ['openid', 'offline_access', ...options.scopes],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    rotateRefreshToken: true,
    clockTolerance: 0, // one clock here: expired is expired
    jwks: signingKeys(),
    cookies: { keys: ['only for tests'] },
    ttl: {
      AccessToken: options.access_token_seconds,
      AuthorizationCode: 60,
      Grant: 86400,
      IdToken: 3600,
      Interaction: 600,
      RefreshToken: 86400,
      Session: 86400,
    },
    features: { devInteractions: { enabled: false }, revocation: { enabled: true, allowedPolicy } },
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_ctx, sub) => bySub.has(sub) && { accountId: sub, claims: () => bySub.get(sub) },
    renderError: (ctx, out) => {
      ctx.type = 'html';
      ctx.body = errorPage(out.error);
    },
  });
  provider.use(record);
  provider.on('grant.revoked', (ctx, grantId) => log('grant_revoked', { grant: grantId, by: ctx.oidc.route }));
  provider.on('server_error', (_ctx, error) => log('server_error', { message: error.message }));
  return provider;
}

async function form(request) {
  let body = '';
  for await (const chunk of request) body += chunk;
  return new URLSearchParams(body);
}

/** The pages between the authorization request and the redirect back. */
async function interact(provider, request, response) {
  const { uid, prompt, params, session } = await provider.interactionDetails(request, response);
  const finish = (result) =>
    provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
  const show = (html, status = 200) =>
    response.writeHead(status, { 'content-type': 'text/html; charset=utf-8' }).end(html);

  if (request.method === 'GET') {
    return prompt.name === 'login'
      ? show(loginPage(uid, params.login_hint))
      : show(consentPage(uid, bySub.get(session.accountId).name, params.client_id, params.scope.split(' ')));
  }
  const fields = await form(request);
  if (prompt.name === 'login') {
    const user = users.get(fields.get('user'));
    return user ? finish({ login: { accountId: user.sub } }) : show(loginPage(uid, ''), 422);
  }
  if (fields.get('answer') !== 'allow') return finish({ error: 'access_denied', error_description: 'The user said no.' });

  // Every consent is a grant of its own, as at providers that let one of several connections be removed.
  const allowed = fields.getAll('scope');
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(allowed.join(' '));
  const withheld = params.scope.split(' ').filter((scope) => !allowed.includes(scope));
  if (withheld.length > 0) grant.rejectOIDCScope(withheld.join(' '));
  return finish({ consent: { grantId: await grant.save() } });
}

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = startProvider(issuer);
  const protocol = provider.callback();
  server.on('request', (request, response) => {
    if (!request.url.startsWith('/interaction/')) return protocol(request, response);
    return interact(provider, request, response).catch((error) => {
      response.writeHead(error.statusCode ?? 500, { 'content-type': 'text/html' }).end(errorPage(error.message));
    });
  });
  log('listening', { issuer });
});

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const command = JSON.parse(line);
    if (command.set) Object.assign(options, command.set);
    if ('sync' in command) log('sync', { id: command.sync });
  })
  .on('close', () => process.exit(0));
