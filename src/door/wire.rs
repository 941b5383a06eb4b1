//! A connection's bytes, and what their coming and going tells of its client.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::seats::Seat;

/// The end of a connection that is ours.
pub(super) trait Stream: AsyncRead + AsyncWrite + AsFd + Unpin + Send + Sync + 'static {
    /// Ready when there may be something to read.
    fn poll_maybe_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Does what reads, and remembers if there was nothing.
    fn try_to<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T>;
}

impl Stream for UnixStream {
    fn poll_maybe_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }

    fn try_to<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.try_io(Interest::READABLE, read)
    }
}

impl Stream for TcpStream {
    fn poll_maybe_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }

    fn try_to<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.try_io(Interest::READABLE, read)
    }
}

/// A stream whose seat learns when bytes come, and when the client does not take what is written.
pub(super) struct Wire<S> {
    stream: S,
    seat: Arc<Seat>,
    /// What was read already.
    before: Bytes,
}

impl<S: Stream> Wire<S> {
    pub(super) fn new(stream: S, seat: Arc<Seat>) -> Self {
        Self { stream, seat, before: Bytes::new() }
    }

    /// Puts back what was read and not used: the beginning of a request's head.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.seat.hear();
            self.before = bytes;
        }
    }

    /// Waits until there is something to read, the end included.
    pub(super) async fn readable(&self) -> io::Result<()> {
        if !self.before.is_empty() {
            return Ok(());
        }
        std::future::poll_fn(|context| {
            loop {
                ready!(self.stream.poll_maybe_readable(context))?;
                // tokio takes a new stream for readable until somebody finds that it is not.
                let peeked = self.stream.try_to(|| Ok(recv(&self.stream, &mut [0; 1], RecvFlags::PEEK)?.0));
                match peeked {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // hyper will find out about whatever else it is.
                    _ => return Poll::Ready(Ok(())),
                }
            }
        })
        .await
    }

    fn written<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_pending() {
            self.seat.set_stuck(true);
        }
        result
    }
}

impl<S: Stream> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let count = self.before.len().min(buffer.remaining());
            buffer.put_slice(&self.before[..count]);
            self.before.advance(count);
            return Poll::Ready(Ok(()));
        }
        let filled = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > filled {
            self.seat.hear();
        }
        result
    }
}

impl<S: Stream> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(result)
    }

    /// Called when everything before was written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seat.set_stuck(false);
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
