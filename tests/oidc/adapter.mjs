// Storage for oidc-provider: one Map that forgets nothing by itself. The library's own in-memory adapter drops its
// oldest records after a thousand, and a test that rotates tokens often would see grants die for no reason.

const records = new Map(); // "Model:id" -> payload
const sessions = new Map(); // session uid -> id

export class MapAdapter {
  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload) {
    records.set(this.key(id), payload);
    if (payload.uid) sessions.set(payload.uid, id);
  }

  async find(id) {
    return records.get(this.key(id));
  }

  async findByUid(uid) {
    return this.find(sessions.get(uid));
  }

  async findByUserCode() {
    return undefined; // the device flow is off
  }

  async consume(id) {
    const record = records.get(this.key(id));
    if (record) record.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    records.delete(this.key(id));
  }

  async revokeByGrantId(grantId) {
    for (const [key, payload] of records) {
      if (payload.grantId === grantId) records.delete(key);
    }
  }
}
