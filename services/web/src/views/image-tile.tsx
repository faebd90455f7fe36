import type { Image } from '../api/types'
import { usePicture } from '../hooks/picture'
import { moment } from '../format'

/** What can be said of an image that nobody has described. */
export function describe(image: Image): string {
  return `Image of ${moment(image.created_at)}, ${image.width} × ${image.height}`
}

export function ImageTile({ image, open }: { image: Image; open: () => void }) {
  const { src, error } = usePicture(image.thumbnails['480'])
  return (
    <button type="button" className="tile" onClick={open}>
      {src !== undefined && <img src={src} alt={describe(image)} />}
      {src === undefined && (
        <span className={error === undefined ? 'placeholder pulse' : 'placeholder'}>
          <span className="visually-hidden">{describe(image)}: </span>
          {error === undefined ? <span className="visually-hidden">loading</span> : 'no preview'}
        </span>
      )}
    </button>
  )
}
