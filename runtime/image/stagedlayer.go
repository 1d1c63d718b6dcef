package image

// stagedLayer is a layer that is unpacked in the transaction's folder: its files in layers/<cacheID>, what is known of
// it in layerdb/<cacheID>.
type stagedLayer struct {
	Layer
	link string

	unpacked chan struct{} // closed once the directory is whole, and verified; what follows is valid then
	lossy    bool          // the tar cannot be put together again from the directory: it is to be stored whole
}
