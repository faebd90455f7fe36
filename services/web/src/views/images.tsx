import { useCallback, useEffect, useRef, useState } from 'react'
import { flushSync } from 'react-dom'
import type { Image, ImageStats } from '../api/types'
import { LoadMore } from '../components/load-more'
import { useNotify } from '../components/notify'
import { focusHeading, View } from '../components/view'
import { bytes } from '../format'
import { usePages } from '../hooks/pages'
import { useServices } from '../hooks/services'
import { useUploads } from '../hooks/uploads'
import { ImageDialog } from './image-dialog'
import { ImageTile } from './image-tile'
import { Uploader } from './uploader'

const keyOf = (image: Image) => image.filename

export function ImagesView() {
  const { api } = useServices()
  const notify = useNotify()
  const load = useCallback((cursor: string | null, signal: AbortSignal) => api.images(cursor, signal), [api])
  const pages = usePages(load, keyOf)
  const [changes, setChanges] = useState(0)
  const [open, setOpen] = useState<Image | null>(null)
  const list = useRef<HTMLUListElement>(null)

  const uploads = useUploads((image, file) => {
    pages.prepend(image)
    setChanges((count) => count + 1)
    notify(`${file.name} uploaded.`)
  })
  const deleted = (image: Image) => {
    flushSync(() => setOpen(null))
    pages.remove(image)
    setChanges((count) => count + 1)
    notify('Image deleted.')
    focusHeading()
  }
  const empty = pages.items.length === 0 && !pages.loading && pages.error === undefined
  return (
    <View title="Images">
      <Uploader uploads={uploads} />
      <Room changes={changes} />
      {empty && <p className="empty">No images yet.</p>}
      <ul ref={list} className="gallery" aria-label="Your images">
        {pages.items.map((image) => (
          <li key={image.filename}>
            <ImageTile image={image} open={() => setOpen(image)} />
          </li>
        ))}
      </ul>
      <LoadMore pages={pages} what="images" list={list} />
      {open && <ImageDialog image={open} close={() => setOpen(null)} deleted={() => deleted(open)} />}
    </View>
  )
}

/** How much of the account's room is taken. Left out while it is not known: nothing here depends on it. */
function Room({ changes }: { changes: number }) {
  const { api } = useServices()
  const [stats, setStats] = useState<ImageStats | null>(null)
  useEffect(() => {
    const controller = new AbortController()
    api.imageStats(controller.signal).then(setStats, () => undefined)
    return () => controller.abort()
  }, [api, changes])
  if (stats === null) return null
  return (
    <p className="room">
      <label htmlFor="room">
        {bytes(stats.bytes)} of {bytes(stats.quota.bytes)} in use
      </label>
      <meter id="room" min={0} max={stats.quota.bytes} high={stats.quota.bytes * 0.9} value={stats.bytes} />
    </p>
  )
}
