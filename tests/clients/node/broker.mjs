// A client of the token broker from its proto file; no generated code.

import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const PROTO = fileURLToPath(new URL('../../../proto/', import.meta.url));

// What may be asked twice. A second BeginOAuth, for one, would be a second consent.
const REPEATABLE = ['GetCredential', 'Refresh', 'ListCredentials', 'ListProviders', 'GetFlow', 'RenewLease', 'CompleteOAuth'];
// Each replica in turn; a replica that is going away, or a refresh that is under way, is no reason to give up at once.
const CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: REPEATABLE.map((method) => ({ service: 'tokenbroker.v1.TokenBrokerService', method })),
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: '0.1s',
        maxBackoff: '2s',
        backoffMultiplier: 2,
        retryableStatusCodes: ['UNAVAILABLE'],
      },
    },
  ],
};

/**
 * Has a method for each RPC: `await broker.GetCredential({ key: { provider, user_id, service } })`. Fields have the
 * proto's names, enum values are names, 64-bit integers are strings, and `result` says which of a oneof is set.
 */
export function connect(address, apiKey, { timeoutMs = 30_000, options = {} } = {}) {
  const definition = loader.loadSync('tokenbroker/v1/token_broker.proto', {
    includeDirs: [PROTO],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  const { TokenBrokerService } = grpc.loadPackageDefinition(definition).tokenbroker.v1;
  // In production: grpc.credentials.createSsl(). An API key must not cross a network in the clear.
  const client = new TokenBrokerService(address, grpc.credentials.createInsecure(), {
    'grpc.service_config': JSON.stringify(CONFIG),
    ...options,
  });
  const metadata = new grpc.Metadata();
  metadata.set('authorization', `Bearer ${apiKey}`);

  const broker = { close: () => client.close() };
  for (const name of Object.keys(TokenBrokerService.service)) {
    broker[name] = (request) =>
      new Promise((resolve, reject) => {
        const deadline = Date.now() + timeoutMs;
        client[name](request, metadata, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
      });
  }
  return broker;
}

/** An enum value's name without the enum's own: `REVOKED`. */
export const short = (name, enumName) => name.replace(`${enumName}_`, '');
