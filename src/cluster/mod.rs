//! The connection to one API server: TLS from a credential, an HTTP/2 pool, the wiping HTTP/1.1 reader, discovery.
