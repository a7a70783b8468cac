// SPDX-License-Identifier: Apache-2.0

// Package conversion changes the format in which a directory keeps the log, the vote and the identity of a node.
// Everything else in the directory is the same for every format, and stays as it is.
//
// A note in the directory says how far the conversion has come. While the note says that the conversion has begun,
// the directory has the old format, and the files of the new one are incomplete. When the note says that it is done,
// the directory has the new format, and the files of the old one are only to be removed. The note is replaced in one
// step, so at every moment the directory has one of the two formats. [Settle] undoes a conversion that has only
// begun, and completes one that is done.
//
// The old files are copied to a subdirectory before the new ones are made, so nothing is lost with them.
package conversion
