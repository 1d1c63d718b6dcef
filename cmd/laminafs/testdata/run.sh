# Runs a program, and waits for the servers that it has started. "$@" is the program.
. "$LIB"
rc=0
"$@" || rc=$?
# The servers have our environment. One that is about to end may need a moment.
noservers() { ! grep -qsz "^XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR\$" $(pgrep -x laminafs | sed 's,.*,/proc/&/environ,') </dev/null; }
[ $rc -ne 0 ] || until_ok noservers
exit $rc
