import { type DragEvent, useId, useState } from 'react'
import { ApiError } from '../api/problem'
import { ErrorNotice } from '../components/error-notice'
import { bytes } from '../format'
import type { Upload, Uploads } from '../hooks/uploads'
import { IMAGE_TYPES } from '../rules'

/** Takes files, by its button or dropped onto it, and shows those that are on their way. */
export function Uploader({ uploads }: { uploads: Uploads }) {
  const id = useId()
  const [over, setOver] = useState(false)
  const drop = (event: DragEvent) => {
    event.preventDefault()
    setOver(false)
    uploads.add(event.dataTransfer.files)
  }
  return (
    <section className="card" aria-label="Upload">
      {/* Dropping is a shortcut for the pointer; the input inside is what everybody else uses. */}
      <div
        role="presentation"
        className={over ? 'drop over' : 'drop'}
        onDragOver={(event) => {
          event.preventDefault()
          setOver(true)
        }}
        onDragLeave={() => setOver(false)}
        onDrop={drop}
      >
        <input
          id={id}
          className="visually-hidden"
          type="file"
          multiple
          accept={IMAGE_TYPES}
          aria-describedby={`${id}-hint`}
          onChange={(event) => {
            uploads.add(event.target.files ?? [])
            // The same file can be chosen again.
            event.target.value = ''
          }}
        />
        <label htmlFor={id} className="button primary">
          Choose images
        </label>
        <p id={`${id}-hint`} className="hint">
          JPEG, PNG, GIF, WebP or AVIF<span className="pointer-only">, or drop them here</span>
        </p>
      </div>
      <ul className="uploads" aria-label="Uploads">
        {uploads.list.map((upload) => (
          <li key={upload.id}>
            <Row upload={upload} uploads={uploads} removed={() => document.getElementById(id)?.focus()} />
          </li>
        ))}
      </ul>
    </section>
  )
}

interface RowProps {
  upload: Upload
  uploads: Uploads
  /** Called when its button, and the focus with it, is about to go. */
  removed: () => void
}

function Row({ upload, uploads, removed }: RowProps) {
  const { id, file, status, sent, error } = upload
  const state = status === 'waiting' ? 'Waiting' : sent < 1 ? `${Math.floor(sent * 100)} %` : 'Processing…'
  return (
    <>
      <p className="upload">
        <span className="name">{file.name}</span>
        <span className="hint">{bytes(file.size)}</span>
        {status !== 'failed' && <span className="hint">{state}</span>}
        <button
          type="button"
          className="quiet small"
          onClick={() => {
            uploads.remove(id)
            removed()
          }}
        >
          {status === 'failed' ? 'Dismiss' : 'Cancel'}
          <span className="visually-hidden"> {file.name}</span>
        </button>
      </p>
      {status !== 'failed' && <progress aria-label={`Upload of ${file.name}`} max={1} {...(sent < 1 ? { value: sent } : {})} />}
      {status === 'failed' && <ErrorNotice error={error} retry={mayHelp(error) ? () => uploads.retry(id) : undefined} />}
    </>
  )
}

/** Whether the same file could be taken later: when there is a connection again, or room. */
function mayHelp(error: unknown): boolean {
  return error instanceof ApiError && (error.temporary || error.code === 'quota-exceeded')
}
