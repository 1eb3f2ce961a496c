// Package archive gives plans what the server's store holds: bundles, and the signed
// statements about them. [Archive] reads them as a plan needs them, and [Check] finds
// bundles whose files are lost or damaged.
//
// Statements are added and never taken back, so what was read once stays true.
package archive
