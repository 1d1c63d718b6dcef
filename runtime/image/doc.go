// Package image keeps layered images, and the layers of containers, in the layout of Docker's overlay2 store:
//
//	imagedb/content/sha256/<imageID>           the image's configuration, byte for byte; its sha256 is the image's ID
//	imagedb/metadata/sha256/<imageID>/         parent, lastUpdated (when it was last tagged)
//	layerdb/sha256/<chainID>/                  cache-id, diff, parent, size, tar-split.json.gz
//	layerdb/mounts/<containerID>/              init-id, mount-id, parent
//	layers/<cacheID>/{diff/,link,lower,committed}
//	layers/l/<26 characters> -> ../<cacheID>/diff
//	repositories.json                          names of images
//	image.lock, tmp/<transaction>/             see below
//
// The chainID of the lowest layer is its diffID, the sha256 of its tar; of every other
// sha256(parent's chainID + " " + diffID). So a layer is shared by all images whose layers are the same up to it.
// Files of a layer are kept as its tar has them, whiteouts included; with tar-split.json.gz, what a tar has besides
// the files' data, the tar is put together again bit for bit.
//
// # Transactions
//
// Whatever changes the store is staged in a folder of its own, tmp/<id>, which its process holds by flock(2), and then
// shown by renames under image.lock:
//
//	begin     mkdir tmp/<id>, flock it                          killed here or below: the folder is nobody's,
//	hold      tmp/<id>/hold/<chainID>: layers it builds on      the next Open deletes it
//	stage     download, verify, unpack below tmp/<id>
//	commit    lock image.lock exclusively
//	          write tmp/<id>/journal, the list of renames       killed from here on: whoever takes the lock next
//	          rename, one after the other                       does the rest of the list first
//	          unlink tmp/<id>/journal
//	          unlock
//	end       delete tmp/<id>: what was renamed into it goes
//
// So readers, who take image.lock shared, see all of a change or nothing of it, and nothing is locked while data is
// moved. Removal is the same: layers are renamed into the transaction's folder.
//
// A layer stays as long as an image has it, a container is mounted on it, or a living transaction holds it.
//
// # Locks
//
// Outermost first: a transaction's own folder; image.lock. Within a process each call opens image.lock anew, so that
// goroutines exclude each other as processes do.
package image
