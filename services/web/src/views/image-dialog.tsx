import { useState } from 'react'
import type { Image } from '../api/types'
import { BusyButton } from '../components/busy-button'
import { Confirm } from '../components/confirm'
import { Dialog } from '../components/dialog'
import { ErrorNotice } from '../components/error-notice'
import { bytes, moment } from '../format'
import { useAction } from '../hooks/action'
import { usePicture } from '../hooks/picture'
import { useServices } from '../hooks/services'
import { describe } from './image-tile'

interface Props {
  image: Image
  close: () => void
  deleted: () => void
}

/** One image, large, and what can be done with it. */
export function ImageDialog({ image, close, deleted }: Props) {
  const { api } = useServices()
  const { src, error } = usePicture(image.thumbnails['1200'])
  const download = useAction()
  const [asking, setAsking] = useState(false)
  const save = async () => {
    const original = await api.picture(image.url, AbortSignal.timeout(120_000))
    const link = document.createElement('a')
    link.href = URL.createObjectURL(original)
    link.download = image.filename
    link.click()
    // The browser has taken the bytes over by then.
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
  }
  return (
    <Dialog title="Image" close={close} className="viewer">
      <div className="stage">
        {src !== undefined && <img src={src} alt={describe(image)} />}
        {src === undefined && error === undefined && <p className="loading">Loading…</p>}
        <ErrorNotice error={error} />
      </div>
      <dl>
        <dt>Uploaded</dt>
        <dd>{moment(image.created_at)}</dd>
        <dt>Size</dt>
        <dd>
          {image.width} × {image.height}, {bytes(image.size)}
        </dd>
        <dt>Type</dt>
        <dd>{image.content_type.replace('image/', '').toUpperCase()}</dd>
        <dt>SHA-256</dt>
        <dd className="hash">{image.sha256}</dd>
      </dl>
      <ErrorNotice error={download.error} />
      <div className="buttons">
        <button type="button" className="primary" onClick={close}>
          Close
        </button>
        <BusyButton type="button" className="quiet" busy={download.running} onClick={() => void download.run(save)}>
          {download.running ? 'Fetching…' : 'Download original'}
        </BusyButton>
        <button type="button" className="quiet danger" onClick={() => setAsking(true)}>
          Delete
        </button>
      </div>
      {asking && (
        <Confirm
          title="Delete this image?"
          text="It will be gone for good."
          action="Delete image"
          work={() => api.deleteImage(image.filename)}
          done={deleted}
          close={() => setAsking(false)}
        />
      )}
    </Dialog>
  )
}
