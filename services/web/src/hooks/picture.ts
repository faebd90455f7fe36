import { useEffect, useState } from 'react'
import { isAbort } from '../api/problem'
import { useServices } from './services'

export interface Picture {
  /** A blob: address, as long as the component lives. */
  src: string | undefined
  error: unknown
}

/** The image behind an address that wants a token. The component that asks needs `key={url}` should the url change. */
export function usePicture(url: string): Picture {
  const { api } = useServices()
  const [picture, setPicture] = useState<Picture>({ src: undefined, error: undefined })
  useEffect(() => {
    const controller = new AbortController()
    let src: string | undefined
    api.picture(url, controller.signal).then(
      (blob) => {
        if (controller.signal.aborted) return
        src = URL.createObjectURL(blob)
        setPicture({ src, error: undefined })
      },
      (error: unknown) => {
        if (!isAbort(error)) setPicture({ src: undefined, error })
      },
    )
    return () => {
      controller.abort()
      if (src !== undefined) URL.revokeObjectURL(src)
    }
  }, [api, url])
  return picture
}
