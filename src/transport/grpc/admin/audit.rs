//! QueryAudit, VerifyAudit, ExportAudit.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::super::convert::audit::{self as convert, heads};
use super::super::convert::{fitting, number};
use super::super::guard::open;
use super::super::status;
use super::about_tenant;
use crate::application::Broker;
use crate::application::admin::AuditExport;
use crate::domain::audit::Line;
use crate::r#gen::v1 as pb;

/// The stream of ExportAudit.
pub(super) type Export = Pin<Box<dyn Stream<Item = Result<pb::ExportAuditResponse, Status>> + Send>>;

pub(super) async fn query(
    broker: &Broker,
    request: Request<pb::QueryAuditRequest>,
) -> Result<Response<pb::QueryAuditResponse>, Status> {
    let (call, message) = open(request)?;
    let (tenant, asked) = convert::query(message, call.principal.tenant())?;
    call.notes.about_user(asked.user.as_ref(), asked.provider.as_ref());
    about_tenant(&call.notes, tenant.as_ref());
    let page = broker.query_audit(&call.principal, tenant, asked).await?;
    let (rows, more) = fitting(page.rows.into_iter().map(convert::row), page.before.is_some());
    let last = rows.last().filter(|_| more).map(|row| row.sequence.to_string());
    Ok(Response::new(pb::QueryAuditResponse { rows, next_page_token: last.unwrap_or_default() }))
}

pub(super) async fn verify(
    broker: &Broker,
    request: Request<pb::VerifyAuditRequest>,
) -> Result<Response<pb::VerifyAuditResponse>, Status> {
    let (call, message) = open(request)?;
    let (tenant, noted) = convert::verify(message)?;
    about_tenant(&call.notes, tenant.as_ref());
    let verdict = broker.verify_audit(&call.principal, tenant, noted).await?;
    Ok(Response::new(pb::VerifyAuditResponse {
        base: Some(heads(verdict.base)),
        head: Some(heads(verdict.head)),
        flawed_sequence: verdict.flaw.map_or(0, |flaw| number(flaw.sequence)),
        flaw: verdict.flaw.map(|flaw| flaw.kind.to_string()).unwrap_or_default(),
    }))
}

pub(super) async fn export(
    broker: &Broker,
    request: Request<pb::ExportAuditRequest>,
) -> Result<Response<Export>, Status> {
    let (call, message) = open(request)?;
    let (tenant, after) = convert::export(message)?;
    about_tenant(&call.notes, tenant.as_ref());
    let export = broker.export_audit(&call.principal, tenant, after).await?;
    let chunks = stream::unfold(Some(export), |export| async move {
        let mut export = export?;
        match chunk(&mut export).await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(export))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(Response::new(chunks.boxed()))
}

async fn chunk(export: &mut AuditExport) -> Result<Option<pb::ExportAuditResponse>, Status> {
    let Some((mut over, rows)) = export.next().await? else { return Ok(None) };
    let mut lines = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut lines, &Line::new(over, &row)).map_err(|_| status::internal())?;
        lines.push(b'\n');
        over = row.head();
    }
    Ok(Some(pb::ExportAuditResponse { lines }))
}
