/** Uploads by XMLHttpRequest: fetch does not tell how much has been sent. */

import { ApiError, problemOf } from './problem'
import type { Image } from './types'

/** Called with the part that has been sent, 0 to 1. */
export type Progress = (sent: number) => void

/** The image as the server registered it. Throws ApiError, or an AbortError when `signal` was aborted. */
export function uploadWith(url: string, file: File, token: string, progress: Progress, signal: AbortSignal): Promise<Image> {
  return new Promise((resolve, reject) => {
    const form = new FormData()
    form.append('file', file)
    const request = new XMLHttpRequest()
    request.open('POST', url)
    request.setRequestHeader('Authorization', `Bearer ${token}`)
    request.setRequestHeader('Accept', 'application/json')
    request.upload.onprogress = ({ lengthComputable, loaded, total }) => {
      if (lengthComputable && total > 0) progress(loaded / total)
    }
    request.onload = () => {
      try {
        resolve(answered(request))
      } catch (error) {
        reject(error instanceof Error ? error : new Error('upload: no JSON'))
      }
    }
    request.onerror = () => reject(new ApiError(0, { code: navigator.onLine ? 'unreachable' : 'offline' }))
    request.onabort = () => reject(new DOMException('upload cancelled', 'AbortError'))
    const abort = () => request.abort()
    signal.addEventListener('abort', abort, { once: true })
    request.onloadend = () => signal.removeEventListener('abort', abort)
    if (signal.aborted) {
      reject(new DOMException('upload cancelled', 'AbortError'))
      return
    }
    request.send(form)
  })
}

function answered(request: XMLHttpRequest): Image {
  if (request.status === 201) return JSON.parse(request.responseText) as Image
  throw problemOf(request.status, (name) => request.getResponseHeader(name), request.responseText)
}
