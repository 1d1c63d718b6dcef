package image

// stagedLayer is a layer that is unpacked in the transaction's folder: its files in layers/<cacheID>, what is known of
// it in layerdb/<cacheID>.
type stagedLayer struct {
	Layer
	link string
}
