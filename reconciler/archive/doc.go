// Package archive reads the server's store for plans: bundles, and the signed statements about them. [Archive] reads
// what a plan needs, and [Check] finds bundles whose files are lost or damaged.
//
// Statements are never removed, so each is read once.
package archive
