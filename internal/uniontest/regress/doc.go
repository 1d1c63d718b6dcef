// Package regress holds what was once wrong and takes more than a layer script to show: two things at once, a limit
// on descriptors, a step that fails. What a script can say is in testdata/scripts/regress.txt beside it, and what holds
// after a crash in package crash. All is in the tests.
package regress
