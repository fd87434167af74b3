// Package lb is the load balancer for WordPress: it takes requests of browsers,
// chooses a web server of the cluster for each, and passes both ways on without
// storing either.
//
// The nouns it adds are the [Backend] (a web server as its [Source] tells of it),
// the upstream (a backend with what is known of its health and load), the [Rule]
// (which requests go to which pool, and how), and the [Balancer], which joins
// them. There are two pools over the same upstreams: any, where the client's
// address decides (affinity), and admin, one upstream at a time with the others
// as its successors.
//
// What is decided where: config.go what can be set; rules.go what a request is;
// realip.go who sent it; select.go, admin.go and upstream.go where it goes;
// transport.go how often it is tried; proxy.go everything around one request;
// guard.go and listen.go what a connection may do.
//
// Locks: pool.mu, adminPool.mu, upstream.mu, in this order; none is held while
// the network is waited for. The configuration is an immutable value behind one
// atomic pointer; a request uses one of them from its beginning to its end.
package lb
