//! What callers say about where they were, for `fuzz/`.

use super::list_credentials::PageToken;
use super::watch::Cursor;
use crate::domain::key::TenantId;

/// A cursor of WatchCredentials, a page token of ListCredentials. A page token leads to no other tenant.
pub(crate) fn read_position(text: &str) {
    if let Some(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.encode(), text, "one position, one cursor");
    }
    let Ok(tenant) = TenantId::new("mine") else { return };
    if let Some(key) = PageToken::parse(text, "f", &tenant) {
        assert_eq!(key.tenant, tenant, "a page token does not leave its tenant");
    }
}
