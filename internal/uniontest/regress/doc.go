// Package regress holds what was once wrong, or is promised, and takes more than a layer script to show: two things at
// once, a limit on descriptors, a step that fails, a disk that is full, layers that are mounts themselves. What a script
// can say is in testdata/scripts beside it, and what holds after a crash in package crash. All is in the tests.
package regress
