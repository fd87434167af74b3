// Package policy decides which chunk of a full cache goes next. It knows the
// name and size of every chunk on the disk, about 60 bytes of memory each, and
// touches no file.
//
// The order is that of S3-FIFO (Yang et al., "FIFO queues are all you need for
// cache eviction", SOSP 2023): a newcomer waits in a small queue, a tenth of the
// bytes, and reaches the main queue only if it is used again meanwhile; one that
// comes back soon after it was dropped goes to the main queue at once. So a
// backup that reads everything once passes through the small queue and leaves
// the rest alone. Uses within 10 s of each other count as one (the correlated
// references of O'Neil et al., "The LRU-K page replacement algorithm", SIGMOD
// 1993): a large chunk is read in many pieces.
//
// Chunks that may not be dropped are kept apart in a third list, so that a cache
// full of them costs no search.
package policy
