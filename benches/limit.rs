//! A server in Rust that adds two numbers and does nothing else: what a call through the protocol
//! costs at the least. `omni-bench rmcp stdio`, or `rmcp http PORT`.

use anyhow::{Context, Result, bail};
use axum::serve::ListenerExt;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorData, JsonObject, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, ServiceExt};
use serde_json::{Value, json};

#[derive(Clone)]
struct Sums;

impl ServerHandler for Sums {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        });
        let schema: JsonObject = schema.as_object().cloned().unwrap_or_default();
        Ok(ListToolsResult::with_all_items(vec![Tool::new("add", "Add two numbers.", schema)]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let number = |name: &str| arguments.get(name).and_then(Value::as_i64).unwrap_or_default();
        Ok(CallToolResult::structured(json!({"sum": number("a") + number("b")})).into())
    }
}

/// Serves until it is ended.
pub fn serve(words: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        match words {
            [way] if way == "stdio" => {
                Sums.serve((tokio::io::stdin(), tokio::io::stdout())).await?.waiting().await?;
                Ok(())
            }
            [way, port] if way == "http" => {
                let sessions = LocalSessionManager::default().into();
                let config = StreamableHttpServerConfig::default();
                let service = StreamableHttpService::new(|| Ok(Sums), sessions, config);
                let port: u16 = port.parse().context("a port")?;
                let socket = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
                let socket = socket.tap_io(|stream| drop(stream.set_nodelay(true)));
                Ok(axum::serve(socket, axum::Router::new().nest_service("/mcp", service)).await?)
            }
            _ => bail!("`rmcp stdio`, or `rmcp http PORT`"),
        }
    })
}
