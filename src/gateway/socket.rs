//! Connections: not too many, and none that only takes up room.
//!
//! A connection is closed when for a minute nothing was written to it and no request of it was
//! being answered, however many bytes dribbled in meanwhile.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at once; others wait to be accepted.
const CONNECTIONS: usize = 1024;
/// How long a connection may be there for nothing.
const IDLE: Duration = Duration::from_secs(60);

/// Accepts connections.
pub(super) struct Socket {
    socket: TcpListener,
    room: Arc<Semaphore>,
}

impl Socket {
    pub(super) fn new(socket: TcpListener) -> Self {
        Self { socket, room: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Listener for Socket {
    type Io = Io;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Io, SocketAddr) {
        let room = self.room.clone().acquire_owned().await.expect("the semaphore is never closed");
        // Tries again by itself after an error.
        let (stream, address) = Listener::accept(&mut self.socket).await;
        // An answer is written in two pieces: the second must not wait until the first is acknowledged.
        drop(stream.set_nodelay(true));
        let idle = Box::pin(tokio::time::sleep(IDLE));
        (Io { stream, idle, line: Line::default(), _room: room }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Requests of a connection that are being answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Line(Arc<AtomicUsize>);

impl Connected<IncomingStream<'_, Socket>> for Line {
    fn connect_info(stream: IncomingStream<'_, Socket>) -> Self {
        stream.io().line.clone()
    }
}

/// Counts a request of a connection until its answer begins; from then on it is written to.
pub(super) async fn counted(ConnectInfo(line): ConnectInfo<Line>, request: Request, next: Next) -> Response {
    struct Counted(Line);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    line.0.fetch_add(1, Ordering::SeqCst);
    let _counted = Counted(line);
    next.run(request).await
}

/// A connection.
pub(super) struct Io {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    line: Line,
    _room: OwnedSemaphorePermit,
}

impl Io {
    fn is_used(&mut self) {
        self.idle.as_mut().reset(Instant::now() + IDLE);
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.idle.as_mut().poll(context).is_ready() {
            if self.line.0.load(Ordering::SeqCst) == 0 {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.is_used();
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.is_used();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces));
        self.is_used();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
